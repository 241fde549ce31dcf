//! The PostgreSQL schema that contains the tables.

/// The name of a PostgreSQL schema: a letter or `_`, then letters, digits and `_`, in lower case, at most 63. Names that start
/// with `pg_` belong to PostgreSQL.
///
/// It may be a reserved word of SQL (`user`), so statements quote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema(String);

impl Schema {
    /// Reads a name.
    ///
    /// # Errors
    /// Says what a name must be, as the end of a sentence.
    pub fn parse(name: &str) -> Result<Schema, &'static str> {
        let fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if (1..=63).contains(&name.len())
            && name.bytes().all(fit)
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.starts_with("pg_")
        {
            Ok(Schema(name.to_owned()))
        } else {
            Err(
                "must be 1 to 63 lower-case letters, digits and _, and not start with a digit or pg_",
            )
        }
    }

    /// The name, for people.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, for a statement.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_names_are_plain() {
        for name in ["todo", "_a1", &"x".repeat(63)] {
            assert_eq!(Schema::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "1a",
            "Todo",
            "to-do",
            "a;drop",
            "a\"b",
            "pg_todo",
            "schémà",
            &"x".repeat(64),
        ] {
            assert!(Schema::parse(name).is_err(), "{name:?}");
        }
    }
}
