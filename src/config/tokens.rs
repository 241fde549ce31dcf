//! Settings of tokens from elsewhere.

use std::path::PathBuf;

use super::ConfigError;
use super::source::Source;
use crate::auth::claims::Expected;
use crate::auth::jwks::{KeySetUrl, Location};

/// Which tokens of others are accepted.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// `AUTH_JWKS_FILE` or `AUTH_JWKS_URL`
    pub key_set: Option<Location>,
    /// `JWT_ISSUER` and `JWT_AUDIENCE`
    pub expected: Expected,
}

impl Tokens {
    /// Reads and checks these settings.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn read(source: &Source) -> Result<Tokens, ConfigError> {
        let key_set = match (source.get("AUTH_JWKS_FILE")?, source.get("AUTH_JWKS_URL")?) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new(
                    "AUTH_JWKS_URL",
                    "cannot be set together with AUTH_JWKS_FILE: set the one that is to count",
                ));
            }
            (Some(file), None) => Some(Location::File(PathBuf::from(file))),
            (None, Some(url)) => Some(Location::Url(
                KeySetUrl::parse(&url)
                    .map_err(|problem| ConfigError::new("AUTH_JWKS_URL", problem))?,
            )),
            (None, None) => None,
        };
        Ok(Tokens {
            key_set,
            expected: Expected {
                issuers: list(source, "JWT_ISSUER")?,
                audiences: list(source, "JWT_AUDIENCE")?,
            },
        })
    }
}

/// Values between commas.
fn list(source: &Source, variable: &'static str) -> Result<Vec<String>, ConfigError> {
    let Some(text) = source.get(variable)? else {
        return Ok(Vec::new());
    };
    let values: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
    // A comma too many must not ask for less than was meant.
    if values.iter().any(String::is_empty) {
        return Err(ConfigError::new(
            variable,
            "must be one value, or several with commas between them",
        ));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Tokens, String> {
        Tokens::read(&Source::of_pairs(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_asked_that_is_not_configured() {
        let tokens = read(&[]).unwrap();
        assert_eq!(
            (tokens.key_set, tokens.expected),
            (None, Expected::default())
        );
    }

    #[test]
    fn several_issuers_may_be_named() {
        let tokens = read(&[("JWT_ISSUER", "https://a.example, https://b.example")]).unwrap();
        assert_eq!(
            tokens.expected.issuers,
            ["https://a.example", "https://b.example"]
        );
        for odd in [",", "a,", " ", "a,,b"] {
            assert!(
                read(&[("JWT_AUDIENCE", odd)])
                    .unwrap_err()
                    .starts_with("JWT_AUDIENCE must")
            );
        }
    }

    #[test]
    fn keys_come_from_one_place() {
        let both = [
            ("AUTH_JWKS_FILE", "a"),
            ("AUTH_JWKS_URL", "https://a.example"),
        ];
        assert!(read(&both).unwrap_err().starts_with("AUTH_JWKS_URL cannot"));
        let line = read(&[("AUTH_JWKS_URL", "http://hunter2.example/jwks")]).unwrap_err();
        assert!(
            line.starts_with("AUTH_JWKS_URL must start with https"),
            "{line}"
        );
        assert!(!line.contains("hunter2"));
    }
}
