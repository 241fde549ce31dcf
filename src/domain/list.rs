//! What is asked of a list of tasks.

/// Most tasks that one answer holds.
pub const LIMIT_MAX: u16 = 1_000;

/// How many tasks an answer may hold: 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// Reads a decimal number.
    ///
    /// # Errors
    /// Says what a limit must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Limit, &'static str> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|limit| digits && (1..=LIMIT_MAX).contains(limit))
            .map(Limit)
            .ok_or("must be a whole number from 1 to 1000")
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Limit {
    /// The most there is, so that a client that knows no pages sees all that an ordinary user has.
    fn default() -> Limit {
        Limit(LIMIT_MAX)
    }
}

/// Which of a user's tasks are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// How many at most.
    pub limit: Limit,
}

impl ListQuery {
    /// Reads the decoded names and values of a query string.
    ///
    /// # Errors
    /// One sentence that names the parameter that is unknown, given twice or wrong.
    pub fn from_parameters(parameters: &[(String, String)]) -> Result<ListQuery, String> {
        let mut limit = None;
        for (name, value) in parameters {
            match name.as_str() {
                "limit" if limit.is_some() => {
                    return Err("query parameter limit is given twice".to_owned());
                }
                "limit" => {
                    limit = Some(
                        Limit::parse(value)
                            .map_err(|error| format!("query parameter limit {error}"))?,
                    )
                }
                _ => {
                    return Err(format!(
                        "query parameter {name:?} is unknown; a list takes limit"
                    ));
                }
            }
        }
        Ok(ListQuery {
            limit: limit.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_numbers_from_1_to_1000() {
        for (text, limit) in [("1", 1), ("1000", 1000), ("050", 50)] {
            assert_eq!(Limit::parse(text).unwrap().get(), limit);
        }
        for text in [
            "",
            "0",
            "1001",
            "-1",
            "+1",
            "1.5",
            "ten",
            "99999999999999999999",
            " 1",
        ] {
            assert!(Limit::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn unknown_and_doubled_parameters_are_named() {
        let query = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect();
            ListQuery::from_parameters(&pairs)
        };
        assert_eq!(query(&[]).unwrap().limit.get(), 1000);
        assert_eq!(query(&[("limit", "7")]).unwrap().limit.get(), 7);
        assert!(query(&[("limit", "x")]).unwrap_err().contains("limit"));
        assert!(
            query(&[("limit", "1"), ("limit", "2")])
                .unwrap_err()
                .contains("twice")
        );
        assert!(query(&[("colour", "red")]).unwrap_err().contains("colour"));
    }
}
