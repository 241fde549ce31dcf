//! Who is calling.
//!
//! - [`token`]: bearer tokens: which are accepted
//! - [`claims`]: what a token must say, and what is read of it
//! - [`minter`]: makes our own
//! - [`jwks`]: the keys of others, and when they are looked at again
//! - `key_source`: their way to us: read from a file, or fetched from an address
//! - [`key_set`]: a set of public keys, and which of them counts for a token
//! - `cryptography`: HMAC and signatures
//! - [`secret`]: the key our tokens are signed with, when none was given

pub mod claims;
mod cryptography;
pub mod jwks;
pub mod key_set;
mod key_source;
pub mod minter;
pub mod secret;
pub mod token;
