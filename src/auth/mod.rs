//! Who is calling: from an `Authorization` header field to a user.
//!
//! - [`guard`]: finds the [`caller::Caller`] of a request
//! - [`error`]: why a request has no caller
//! - [`token`], [`claims`]: checks JWTs
//! - `token_cache`: claims of tokens that were verified a moment ago
//! - [`jwks`], `key_source`, [`key_set`]: the public keys of another issuer
//! - `fetch_allowances`: how often a client may cause a fetch of them
//! - `cryptography`: HMAC and signatures
//! - [`revocation`]: tokens that are refused before they expire
//! - [`api_tokens`]: personal API tokens
//! - [`issuer`], [`minter`], [`opaque`]: makes this server's tokens
//! - [`password`]: passwords and their hashes
//! - [`secret`]: makes and stores a signing key if none is configured

pub mod api_tokens;
pub mod caller;
pub mod claims;
mod cryptography;
pub mod error;
mod fetch_allowances;
pub mod guard;
pub mod issuer;
pub mod jwks;
pub mod key_set;
mod key_source;
pub mod minter;
pub mod opaque;
pub mod password;
pub mod revocation;
pub mod secret;
pub mod token;
mod token_cache;
