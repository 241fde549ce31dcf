//! Who is calling.
//!
//! - [`token`]: bearer tokens: which are accepted
//! - [`claims`]: what a token must say, and what is read of it
//! - [`minter`]: makes our own
//! - [`jwks`]: where the keys of others come from, and when they are looked at again
//! - [`key_set`]: a set of public keys, and which of them counts for a token
//! - `cryptography`: HMAC and signatures
//! - [`secret`]: the key our tokens are signed with, when none was given

pub mod claims;
mod cryptography;
pub mod jwks;
pub mod key_set;
pub mod minter;
pub mod secret;
pub mod token;
