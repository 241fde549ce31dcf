//! Signs this server's bearer tokens: JWTs with HS256, `typ: JWT`, and this server as their issuer.
//!
//! Its other tokens are not JWTs. A JWT of another kind would need another `typ`, which
//! [`TokenVerifier`](super::token::TokenVerifier) refuses (RFC 8725, section 3.11).

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::claims::ISSUER;
use super::cryptography;
use crate::domain::user::UserId;

/// Signs bearer tokens.
pub struct Minter {
    key: EncodingKey,
}

/// A bearer token to be signed.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The user's email address, for clients to show.
    pub email: Option<&'a str>,
    /// The session, whose end ends the token.
    pub session: Option<Uuid>,
    /// The id of the token.
    pub jti: Uuid,
    /// In seconds since 1970.
    pub issued_at: i64,
    /// In whole seconds.
    pub lifetime: Duration,
}

impl Minter {
    /// A minter that signs with the current secret.
    pub fn new(secret: &str) -> Minter {
        cryptography::install();
        Minter {
            key: EncodingKey::from_secret(secret.as_bytes()),
        }
    }

    /// Signs a token without a session, valid from now.
    ///
    /// # Errors
    /// As [`Minter::sign`].
    pub fn mint(
        &self,
        user: &UserId,
        email: Option<&str>,
        lifetime: Duration,
    ) -> Result<String, String> {
        self.sign(&NewToken {
            user,
            email,
            session: None,
            jti: Uuid::new_v4(),
            issued_at: OffsetDateTime::now_utc().unix_timestamp(),
            lifetime,
        })
    }

    /// Signs a token. The same token gives the same text, because HS256 uses no random numbers.
    ///
    /// # Errors
    /// The library's sentence; not known to happen with HS256.
    pub fn sign(&self, token: &NewToken<'_>) -> Result<String, String> {
        let lifetime = i64::try_from(token.lifetime.as_secs()).unwrap_or(i64::MAX);
        let claims = MintedClaims {
            iss: ISSUER,
            sub: token.user.as_str(),
            email: token.email,
            iat: token.issued_at,
            exp: token.issued_at.saturating_add(lifetime),
            jti: token.jti.simple().to_string(),
            sid: token.session,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .map_err(|error| error.to_string())
    }
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    iss: &'static str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
}
