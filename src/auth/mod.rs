//! Who is calling.
//!
//! - [`guard`]: from an `Authorization` header to a [`caller::Caller`]
//! - [`token`]: bearer tokens: which are accepted
//! - [`claims`]: what a token must say, and what is read of it
//! - [`jwks`]: the keys of others, and when they are looked at again
//! - `key_source`: their way to us: read from a file, or fetched from an address
//! - [`key_set`]: a set of public keys, and which of them counts for a token
//! - [`revocation`]: which tokens are refused although they have not expired
//! - [`api_tokens`]: personal API tokens
//! - [`issuer`], [`minter`], [`opaque`]: makes our own
//! - [`password`], [`hashing`]: passwords, and the threads for them
//! - [`guessing`]: how often one may try
//! - `cryptography`: HMAC and signatures
//! - [`secret`]: the key our tokens are signed with, when none was given

pub mod api_tokens;
pub mod caller;
pub mod claims;
mod cryptography;
pub mod guard;
pub mod guessing;
pub mod hashing;
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
