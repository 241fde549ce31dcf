//! Accounts with a password here, and the requests about them.

use std::fmt;
use std::str::FromStr;

use email_address::EmailAddress;
use serde::{Serialize, Serializer};

use super::fields::{BodyError, Field, Fields, Patch, string};
use super::timestamp::Timestamp;
use super::user::UserId;

/// Longest email address, in bytes: what fits between the brackets of RFC 5321, section 4.5.3.1.3.
pub const EMAIL_MAX: usize = 254;
/// Shortest password, in characters (Unicode scalar values; NIST SP 800-63B, section 5.1.1.1).
pub const PASSWORD_MIN: usize = 8;
/// Longest password, in characters (Unicode scalar values).
pub const PASSWORD_MAX: usize = 128;
/// Longest name, in characters (Unicode scalar values).
pub const NAME_MAX: usize = 100;

/// An email address, trimmed and in lower case, so that case does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// Reads an address (RFC 5321, with the characters that RFC 6531 adds).
    ///
    /// # Errors
    /// Says what an address must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Email, &'static str> {
        let text = text.trim().to_lowercase();
        if text.len() > EMAIL_MAX {
            return Err("must have at most 254 characters");
        }
        // A display name ("Me <me@example.org>") or a control character is not part of an address.
        let form = EmailAddress::from_str(&text).is_ok_and(|address| address.as_str() == text);
        if !form || text.contains(['<', '>']) || text.chars().any(char::is_control) {
            return Err("must be an email address");
        }
        Ok(Email(text))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password that a client sends. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a new password: 8 to 128 characters, any of them.
    ///
    /// # Errors
    /// Says what a password must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Password, &'static str> {
        if (PASSWORD_MIN..=PASSWORD_MAX).contains(&text.chars().count()) {
            Ok(Password(text.to_owned()))
        } else {
            Err("must have 8 to 128 characters")
        }
    }

    /// The password, for hashing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The name of a person: 1 to 100 characters after trimming, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Trims white space at both ends.
    ///
    /// # Errors
    /// Says what a name must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Name, &'static str> {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > NAME_MAX {
            return Err("must have 1 to 100 characters");
        }
        // Characters that change the writing direction would also affect the text beside the name.
        let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if text.chars().any(|c| c.is_control() || turns(c)) {
            return Err("must be one line without control characters");
        }
        Ok(Name(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An account as its owner sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// The user it belongs to.
    #[serde(serialize_with = "user_id")]
    pub id: UserId,
    /// The address to log in with; none for a user known only from tokens of another issuer.
    pub email: Option<String>,
    /// The name of the person.
    pub name: Option<String>,
    /// When the user became known here; none before the first write.
    pub created_at: Option<Timestamp>,
}

fn user_id<S: Serializer>(id: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

/// A registration.
#[derive(Debug)]
pub struct Registration {
    /// The address to log in with.
    pub email: Email,
    /// The password.
    pub password: Password,
    /// The name of the person.
    pub name: Patch<Name>,
}

impl Registration {
    /// Reads the body of a registration.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn from_json(body: &[u8]) -> Result<Registration, BodyError> {
        let mut fields = Fields::of(body)?;
        let email = fields.required("email");
        let password = fields.required("password");
        let name = fields.patch("name");
        let (email, password) = fields.finish_with(email.zip(password))?;
        Ok(Registration {
            email,
            password,
            name,
        })
    }
}

/// Email address and password of a login. Their form is not checked: a wrong form just does not match.
#[derive(Debug)]
pub struct Login {
    /// The account's address.
    // `None` if the text is not an address, which no account can have.
    pub email: Option<Email>,
    /// The password.
    pub password: Password,
}

impl Login {
    /// Reads the body of a login: `email` and `password`.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn from_json(body: &[u8]) -> Result<Login, BodyError> {
        let mut fields = Fields::of(body)?;
        let email = fields.required::<Text>("email");
        let password = fields.required("password");
        let (email, Claimed(password)) = fields.finish_with(email.zip(password))?;
        Ok(Login::of(&email.0, password))
    }

    /// Reads the names and values of a form: `username` and `password`, as in the password grant of OAuth 2 (RFC 6749, section
    /// 4.3.2). Other fields are ignored.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn from_form(form: &[(String, String)]) -> Result<Login, BodyError> {
        let value = |wanted: &str| {
            form.iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        let missing = |field| BodyError::in_field(field, "is required");
        let email = value("username")
            .or_else(|| value("email"))
            .ok_or_else(|| missing("username"))?;
        let password = value("password").ok_or_else(|| missing("password"))?;
        Ok(Login::of(email, Claimed::new(password).into_inner()))
    }

    fn of(email: &str, password: Password) -> Login {
        Login {
            email: Email::parse(email).ok(),
            password,
        }
    }
}

/// Changes to an account. Absent fields stay.
#[derive(Debug)]
pub struct AccountChanges {
    /// A new address.
    pub email: Option<Email>,
    /// A new name, or none.
    pub name: Patch<Name>,
    /// The account's password; needed to change the address.
    pub current_password: Option<Password>,
}

impl AccountChanges {
    /// Reads the body of a change.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn from_json(body: &[u8]) -> Result<AccountChanges, BodyError> {
        let mut fields = Fields::of(body)?;
        let changes = AccountChanges {
            email: fields.optional("email"),
            name: fields.patch("name"),
            current_password: fields.optional("current_password").map(Claimed::into_inner),
        };
        fields.finish()?;
        Ok(changes)
    }
}

/// A change of password.
#[derive(Debug)]
pub struct PasswordChange {
    /// The current password, as sent.
    pub current_password: Password,
    /// The new password.
    pub new_password: Password,
    /// Whether to delete all API tokens and end this session too, because a token was stolen.
    pub api_tokens: bool,
}

impl PasswordChange {
    /// Reads the body of a change.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn from_json(body: &[u8]) -> Result<PasswordChange, BodyError> {
        let mut fields = Fields::of(body)?;
        let current = fields.required("current_password");
        let new_password = fields.required("new_password");
        let api_tokens = fields.optional("api_tokens").unwrap_or(false);
        let (Claimed(current_password), new_password) =
            fields.finish_with(current.zip(new_password))?;
        Ok(PasswordChange {
            current_password,
            new_password,
            api_tokens,
        })
    }
}

/// What a logout everywhere ends besides the sessions.
#[derive(Debug, Default)]
pub struct LogoutAll {
    /// Whether to delete all API tokens too.
    pub api_tokens: bool,
}

impl LogoutAll {
    /// Reads the body, which may be absent.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn from_json(body: &[u8]) -> Result<LogoutAll, BodyError> {
        if body.is_empty() {
            return Ok(LogoutAll::default());
        }
        let mut fields = Fields::of(body)?;
        let api_tokens = fields.optional("api_tokens").unwrap_or(false);
        fields.finish_with(Some(LogoutAll { api_tokens }))
    }
}

/// A password that proves that the owner sends the request.
#[derive(Debug)]
pub struct Confirmation {
    /// The password, as sent.
    pub password: Password,
}

impl Confirmation {
    /// Reads the body: `password`.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn from_json(body: &[u8]) -> Result<Confirmation, BodyError> {
        let mut fields = Fields::of(body)?;
        let password = fields.required("password");
        let Claimed(password) = fields.finish_with(password)?;
        Ok(Confirmation { password })
    }
}

/// Any string.
struct Text(String);

/// A password that is compared with a stored one. It is cut to one character more than the longest password, which limits the
/// cost of its hash and cannot make it right.
pub struct Claimed(Password);

impl Claimed {
    fn new(text: &str) -> Claimed {
        Claimed(Password(text.chars().take(PASSWORD_MAX + 1).collect()))
    }

    /// The password.
    pub fn into_inner(self) -> Password {
        self.0
    }
}

impl Field for Claimed {
    fn from_json(json: &str) -> Result<Claimed, &'static str> {
        string(json).map(|text| Claimed::new(&text))
    }
}

impl Field for Text {
    fn from_json(json: &str) -> Result<Text, &'static str> {
        string(json).map(Text)
    }
}

impl Field for Email {
    fn from_json(json: &str) -> Result<Email, &'static str> {
        Email::parse(&string(json)?)
    }
}

impl Field for Password {
    fn from_json(json: &str) -> Result<Password, &'static str> {
        Password::parse(&string(json)?)
    }
}

impl Field for Name {
    fn from_json(json: &str) -> Result<Name, &'static str> {
        Name::parse(&string(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_trimmed_and_put_in_lower_case() {
        assert_eq!(
            Email::parse(" Me@Example.ORG\n").unwrap().as_str(),
            "me@example.org"
        );
        assert_eq!(
            Email::parse("jürgen@bücher.example").unwrap().as_str(),
            "jürgen@bücher.example"
        );
        let long = format!("{}@example.org", "x".repeat(250));
        for text in [
            "",
            "me",
            "me@",
            "@example.org",
            "a@b@c",
            "Me <me@example.org>",
            "me@exa mple.org",
            "a\0@b.c",
            &long,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn passwords_are_counted_in_characters_and_never_shown() {
        for text in ["12345678", "пароль-8", "        ", &"🔑".repeat(128)] {
            assert_eq!(Password::parse(text).unwrap().expose(), text);
        }
        for text in ["", "1234567", "пароль7", &"x".repeat(129)] {
            assert!(Password::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(format!("{:?}", Password::parse("12345678")), "Ok((hidden))");
    }

    #[test]
    fn every_bad_field_of_a_registration_is_named() {
        let Err(BodyError::Invalid(errors)) =
            Registration::from_json(br#"{"email":"me","password":"short","name":""}"#)
        else {
            panic!()
        };
        let names: Vec<&str> = errors.iter().map(|error| error.field.as_ref()).collect();
        assert_eq!(names, ["email", "password", "name"]);
    }

    #[test]
    fn a_login_is_not_checked_for_form() {
        let login = Login::from_json(br#"{"email":"no address","password":"x"}"#).unwrap();
        assert_eq!((login.email, login.password.expose()), (None, "x"));
        let form = [
            ("username", "Me@example.org"),
            ("password", "p"),
            ("grant_type", "password"),
        ];
        let form: Vec<_> = form
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        let login = Login::from_form(&form).unwrap();
        assert_eq!(login.email.unwrap().as_str(), "me@example.org");
        assert!(Login::from_form(&form[..1]).is_err());
        let long = Login::from_json(
            format!(r#"{{"email":"a@b.c","password":"{}"}}"#, "x".repeat(9999)).as_bytes(),
        );
        assert_eq!(long.unwrap().password.expose().len(), PASSWORD_MAX + 1);
    }
}
