//! Who is calling.
//!
//! - [`token`]: bearer tokens: which are accepted, and what they say
//! - [`claims`]: what a token must say, and what is read of it
//! - [`minter`]: makes our own
//! - [`secret`]: the key they are signed with, when none was given

pub mod claims;
pub mod minter;
pub mod secret;
pub mod token;
