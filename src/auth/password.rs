//! Passwords: Argon2id (RFC 9106), with the parameters in every hash, so that they can change.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::domain::account::Password;

/// Memory of one hashing, in KiB: 19 MiB (OWASP Password Storage Cheat Sheet, Argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;

/// The hash of a password nobody has, to spend the same time on an address that nobody has.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEh$Z1xkBh2bEMgdOvb3oJeIWQqYBJzfa1tXc0Z0fB4Vq0Y";

/// What came of holding a password against a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is the password.
    Yes,
    /// It is, and its hash was made with other parameters than today's.
    YesOutdated,
    /// It is not.
    No,
    /// The hash is of an unknown kind, so that no password can match it.
    Unreadable,
}

/// Hashes a password, with a salt of its own. Takes tens of milliseconds and 19 MiB.
///
/// # Errors
/// The library's sentence, where there are no random bytes; never the password.
pub fn hash(password: &Password) -> Result<String, String> {
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).map_err(|error| format!("no random bytes for a salt: {error}"))?;
    argon2()?
        .hash_password_with_salt(password.expose().as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| format!("a password cannot be hashed: {error}"))
}

/// Compares a password with a hash. Without a hash, or with one that cannot be read, it takes as long.
///
/// # Errors
/// The library's sentence if its parameters are wrong.
pub fn verify(password: &Password, hash: Option<&str>) -> Result<Match, String> {
    let text = hash.unwrap_or(NOBODYS);
    let Some(parsed) = PasswordHash::new(text).ok().filter(is_known) else {
        verify(password, None)?;
        return Ok(Match::Unreadable);
    };
    // The parameters are the hash's own.
    let matches = argon2()?
        .verify_password(password.expose().as_bytes(), &parsed)
        .is_ok();
    let current = is_current(&parsed);
    if !matches && !current && hash.is_some() {
        // An outdated hash is held against faster: then nobody's is, too, or the time would tell of the account.
        verify(password, None)?;
    }
    Ok(match (matches && hash.is_some(), current) {
        (false, _) => Match::No,
        (true, true) => Match::Yes,
        (true, false) => Match::YesOutdated,
    })
}

fn is_known(hash: &PasswordHash) -> bool {
    hash.algorithm.as_str().parse::<Algorithm>().is_ok() && Params::try_from(hash).is_ok()
}

fn is_current(hash: &PasswordHash) -> bool {
    hash.algorithm.as_str() == "argon2id"
        && Params::try_from(hash).is_ok_and(|params| {
            (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY_KIB, PASSES, LANES)
        })
}

fn argon2() -> Result<Argon2<'static>, String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[test]
    fn a_password_matches_its_own_hash_alone() {
        let (right, wrong) = (password("correct horse"), password("correct horsf"));
        let (one, other) = (hash(&right).unwrap(), hash(&right).unwrap());
        assert_ne!(one, other, "each has a salt of its own");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_eq!(verify(&right, Some(&one)), Ok(Match::Yes));
        assert_eq!(verify(&wrong, Some(&one)), Ok(Match::No));
        assert_eq!(verify(&right, None), Ok(Match::No));
        for unknown in [
            "",
            "plain",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$scrypt$ln=15,r=8,p=1$aaaa$bbbb",
        ] {
            assert_eq!(
                verify(&right, Some(unknown)),
                Ok(Match::Unreadable),
                "{unknown}"
            );
        }
    }

    #[test]
    fn a_hash_with_other_parameters_is_outdated() {
        let old = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(8 * 1024, 1, 1, None).unwrap(),
        )
        .hash_password_with_salt(b"correct horse", b"0123456789abcdef")
        .unwrap()
        .to_string();
        assert_eq!(
            verify(&password("correct horse"), Some(&old)),
            Ok(Match::YesOutdated)
        );
        assert_eq!(verify(&password("another one"), Some(&old)), Ok(Match::No));
    }

    #[test]
    fn nobodys_hash_costs_as_much_as_anybodys() {
        assert!(is_current(&PasswordHash::new(NOBODYS).unwrap()));
    }
}
