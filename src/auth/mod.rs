//! Who is calling.
//!
//! - [`guard`]: from an `Authorization` header to a [`caller::Caller`]
//! - [`token`]: bearer tokens: which are accepted, and what they say
//! - [`claims`]: what a token must say, and what is read of it
//! - [`revocation`]: which are refused although they have not expired
//! - [`api_tokens`]: personal API tokens
//! - [`issuer`], [`minter`], [`opaque`]: makes our own
//! - [`password`], [`hashing`]: passwords, and the threads for them
//! - [`guessing`]: how often one may try
//! - [`secret`]: the key tokens are signed with, when none was given

pub mod api_tokens;
pub mod caller;
pub mod claims;
pub mod guard;
pub mod guessing;
pub mod hashing;
pub mod issuer;
pub mod minter;
pub mod opaque;
pub mod password;
pub mod revocation;
pub mod secret;
pub mod token;
