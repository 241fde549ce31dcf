//! Makes our own bearer tokens.
//!
//! They are JWTs signed with HS256, with `typ: JWT` in their header, for clients that look at it, and our name as their issuer. A
//! token of ours that is no bearer token is opaque, no JWT at all; should there ever be a JWT of another kind, its header
//! must say so in `typ`, and [`super::token::TokenVerifier`] takes none that does (RFC 8725, section 3.11).

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::claims::ISSUER;
use super::cryptography;
use crate::domain::user::UserId;

/// Makes bearer tokens.
pub struct Minter {
    key: EncodingKey,
}

/// What a session's token says.
#[derive(Clone, Debug)]
pub struct SessionClaims<'a> {
    /// Whose it is.
    pub user: &'a UserId,
    /// Their email address, for clients to show.
    pub email: Option<&'a str>,
    /// The session, which ends its tokens with it.
    pub session: Uuid,
    /// The token's own id.
    pub jti: Uuid,
    /// When it is made, in seconds since 1970.
    pub issued_at: i64,
    /// How long it is good for, in whole seconds.
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

    /// A token for a user that is good for `lifetime` from now and belongs to no session.
    ///
    /// # Errors
    /// The library's own sentence, when it cannot sign; not known to happen with HS256.
    pub fn mint(
        &self,
        user: &UserId,
        email: Option<&str>,
        lifetime: Duration,
    ) -> Result<String, String> {
        let issued_at = OffsetDateTime::now_utc().unix_timestamp();
        self.sign(&MintedClaims {
            iss: ISSUER,
            sub: user.as_str(),
            email,
            iat: issued_at,
            exp: expiry(issued_at, lifetime),
            jti: Uuid::new_v4().simple().to_string(),
            sid: None,
        })
    }

    /// A session's token: byte for byte the same for the same claims, as HS256 draws no random numbers.
    ///
    /// # Errors
    /// As [`Minter::mint`].
    pub fn mint_for_session(&self, claims: SessionClaims<'_>) -> Result<String, String> {
        self.sign(&MintedClaims {
            iss: ISSUER,
            sub: claims.user.as_str(),
            email: claims.email,
            iat: claims.issued_at,
            exp: expiry(claims.issued_at, claims.lifetime),
            jti: claims.jti.simple().to_string(),
            sid: Some(claims.session.to_string()),
        })
    }

    fn sign(&self, claims: &MintedClaims<'_>) -> Result<String, String> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.key)
            .map_err(|error| error.to_string())
    }
}

fn expiry(issued_at: i64, lifetime: Duration) -> i64 {
    issued_at.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
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
    sid: Option<String>,
}
