//! Who is calling.
//!
//! - [`token`]: bearer tokens, made and checked
//! - [`secret`]: the key they are signed with, when none was given

pub mod secret;
pub mod token;
