//! Passwords: Argon2id (RFC 9106), with the parameters in every hash, so that they can change.

use std::cell::RefCell;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

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
    let argon2 = argon2()?;
    let output = output(&argon2, password, &salt)?;
    let hash = ParamsString::try_from(argon2.params())
        .and_then(|params| {
            Ok(PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params,
                salt: Some(Salt::new(&salt)?),
                hash: Some(output),
            })
        })
        .map_err(|error| format!("a password cannot be hashed: {error}"))?;
    Ok(hash.to_string())
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
    let matches = recompute(password, &parsed).is_some_and(|output| Some(output) == parsed.hash);
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

/// The output for a password with algorithm, parameters and salt of a hash; `None` where the hash has none that can be used.
fn recompute(password: &Password, hash: &PasswordHash) -> Option<Output> {
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash
        .version
        .map_or(Ok(Version::default()), Version::try_from);
    let params = Params::try_from(hash).ok()?;
    let argon2 = Argon2::new(algorithm, version.ok()?, params);
    output(&argon2, password, hash.salt.as_ref()?).ok()
}

thread_local! {
    /// The memory of Argon2, which each thread that hashes keeps. When each hashing allocated its own, the allocator kept most of it:
    /// ten logins at once left 179 MB with one such thread, now 27 MB.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Runs Argon2 with the memory of this thread.
fn output(argon2: &Argon2<'_>, password: &Password, salt: &[u8]) -> Result<Output, String> {
    let params = argon2.params();
    let mut bytes = vec![0; params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
    let hashed = MEMORY.with_borrow_mut(|memory| {
        if memory.len() < params.block_count() {
            memory.resize(params.block_count(), Block::new());
        }
        let password = password.expose().as_bytes();
        argon2.hash_password_into_with_memory(password, salt, &mut bytes, memory.as_mut_slice())
    });
    hashed.map_err(|error| error.to_string())?;
    Output::new(&bytes).map_err(|error| error.to_string())
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
    use argon2::PasswordHasher;

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
