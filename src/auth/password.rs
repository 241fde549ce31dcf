//! Passwords: Argon2id (RFC 9106). Each hash contains its parameters, so that they can change. Imported accounts may have a hash of
//! bcrypt or of Argon2 with other parameters, which a login replaces.

use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::domain::account::Password;
use crate::sync::{lock, unpoisoned};

/// Memory of one hashing, in KiB: 19 MiB (OWASP Password Storage Cheat Sheet, Argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;

/// Largest cost of a bcrypt hash that is read. 14 takes about a second; each step more doubles it.
const BCRYPT_COST_MAX: u8 = 14;
/// bcrypt reads so many bytes of a password and ignores the rest.
const BCRYPT_READS: usize = 72;
/// Most memory of an Argon2 hash that is read, in KiB: 256 MiB, and most passes over it.
const READ_MEMORY_KIB: u32 = 256 * 1024;
const READ_PASSES: u32 = 10;

/// The hash of an unknown password. It is compared for an unknown address, so that the answer takes as long as for a known one.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEh$Z1xkBh2bEMgdOvb3oJeIWQqYBJzfa1tXc0Z0fB4Vq0Y";

/// The result of comparing a password with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The password is right.
    Yes,
    /// The password is right, and its hash has other parameters than new hashes.
    YesOutdated,
    /// The password is wrong.
    No,
    /// The hash is of an unknown kind, so that no password can match it.
    Unreadable,
}

/// Longest wait for a turn to hash.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How many passwords are hashed at once: half the cores, at least one, so that other requests have cores left.
pub static AT_ONCE: LazyLock<usize> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    1.max(cores / 2)
});

/// The memory of Argon2 for each password that is hashed at once, empty or with a capacity of at least [`CAPACITY`]. It is kept between
/// hashings, because the system needs milliseconds to provide it.
static MEMORY: LazyLock<Mutex<Vec<Vec<Block>>>> =
    LazyLock::new(|| Mutex::new(vec![Vec::new(); *AT_ONCE]));
static MEMORY_RETURNED: Condvar = Condvar::new();

/// Blocks of 1 KiB: 33 MiB, of which a hashing writes to 19, so that the rest is never resident. glibc returns larger blocks than 32 MiB to
/// the system when they are freed. It keeps smaller ones, for each thread (mallopt(3), M_MMAP_THRESHOLD).
const CAPACITY: usize = 33 * 1024;

/// Returns the memory that is not in use to the system.
pub fn give_memory_back() {
    lock(&MEMORY).fill(Vec::new());
}

/// The right to hash a password, with the memory for it. Dropping it gives both to the next thread that waits.
pub struct Hasher(Vec<Block>);

impl Hasher {
    /// Waits until fewer than [`AT_ONCE`] passwords are hashed. Few threads hash, so a thread waits for a few hashings at most.
    ///
    /// # Errors
    /// The wait was longer than [`PATIENCE`].
    pub fn take() -> Result<Hasher, String> {
        Hasher::take_within(PATIENCE)
    }

    fn take_within(limit: Duration) -> Result<Hasher, String> {
        let returned =
            MEMORY_RETURNED.wait_timeout_while(lock(&MEMORY), limit, |free| free.is_empty());
        let memory = unpoisoned(returned).0.pop();
        memory
            .map(Hasher)
            .ok_or_else(|| format!("no password could be hashed within {limit:?}"))
    }

    /// Hashes a password with a new salt. Takes tens of milliseconds and 19 MiB.
    ///
    /// # Errors
    /// The library's sentence; never the password.
    pub fn hash(&mut self, password: &Password) -> Result<String, String> {
        let mut salt = [0_u8; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| format!("no random bytes for a salt: {error}"))?;
        let params =
            Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| error.to_string())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let output = self.run(&argon2, password, &salt)?;
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

    /// Compares a password with a hash. It takes the same time without a hash, and with one that cannot be read. A bcrypt hash of a
    /// high cost takes longer, until the first login replaces it.
    pub fn verify(&mut self, password: &Password, hash: Option<&str>) -> Match {
        let text = hash.unwrap_or(DUMMY);
        let (matches, current) = if is_bcrypt(text) {
            let bytes = password.expose().as_bytes();
            (bcrypt::verify(bytes, text).unwrap_or(false), false)
        } else if let Some(parsed) = argon2_hash(text) {
            let output = self.recompute(password, &parsed);
            let matches = output.is_some() && output == parsed.hash;
            (matches, is_current(&parsed))
        } else {
            self.verify(password, None);
            return Match::Unreadable;
        };
        if !matches && !current && hash.is_some() {
            // An outdated hash may take less time, which would show that the account exists.
            self.verify(password, None);
        }
        // A new hash would cover the whole password, of which bcrypt has proven the beginning only.
        let kept = current || is_bcrypt(text) && password.expose().len() > BCRYPT_READS;
        match (matches && hash.is_some(), kept) {
            (false, _) => Match::No,
            (true, true) => Match::Yes,
            (true, false) => Match::YesOutdated,
        }
    }

    /// Hashes a password with the algorithm, the parameters and the salt of a hash; `None` if they cannot be used.
    fn recompute(&mut self, password: &Password, hash: &PasswordHash) -> Option<Output> {
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let version = hash
            .version
            .map_or(Ok(Version::default()), Version::try_from);
        let params = Params::try_from(hash).ok()?;
        let argon2 = Argon2::new(algorithm, version.ok()?, params);
        self.run(&argon2, password, hash.salt.as_ref()?).ok()
    }

    fn run(
        &mut self,
        argon2: &Argon2<'_>,
        password: &Password,
        salt: &[u8],
    ) -> Result<Output, String> {
        let params = argon2.params();
        let mut bytes = vec![0; params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
        let blocks = params.block_count();
        if self.0.capacity() < blocks {
            self.0 = Vec::with_capacity(blocks.max(CAPACITY));
        }
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        let password = password.expose().as_bytes();
        argon2
            .hash_password_into_with_memory(password, salt, &mut bytes, self.0.as_mut_slice())
            .map_err(|error| error.to_string())?;
        Output::new(&bytes).map_err(|error| error.to_string())
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        // A hash of another program may have needed more.
        if self.0.len() > MEMORY_KIB as usize {
            self.0 = Vec::new();
        }
        lock(&MEMORY).push(std::mem::take(&mut self.0));
        MEMORY_RETURNED.notify_one();
    }
}

/// Whether a password can be compared with this hash: bcrypt (`$2a$`, `$2b$`, `$2y$`) or Argon2, at a cost that a login may have.
pub fn is_readable(hash: &str) -> bool {
    is_bcrypt(hash) || argon2_hash(hash).is_some()
}

fn is_bcrypt(hash: &str) -> bool {
    let cost = ["$2a$", "$2b$", "$2y$"].iter().find_map(|kind| {
        let (cost, _) = hash.strip_prefix(kind)?.split_once('$')?;
        cost.parse::<u8>().ok()
    });
    cost.is_some_and(|cost| cost <= BCRYPT_COST_MAX) && hash.parse::<bcrypt::HashParts>().is_ok()
}

fn argon2_hash(hash: &str) -> Option<PasswordHash> {
    let parsed = PasswordHash::new(hash).ok()?;
    parsed.algorithm.as_str().parse::<Algorithm>().ok()?;
    let params = Params::try_from(&parsed).ok()?;
    let affordable = params.m_cost() <= READ_MEMORY_KIB && params.t_cost() <= READ_PASSES;
    (affordable && parsed.salt.is_some() && parsed.hash.is_some()).then_some(parsed)
}

fn is_current(hash: &PasswordHash) -> bool {
    hash.algorithm.as_str() == "argon2id"
        && Params::try_from(hash).is_ok_and(|params| {
            (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY_KIB, PASSES, LANES)
        })
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher;

    use super::*;

    fn hash(password: &Password) -> String {
        Hasher::take().unwrap().hash(password).unwrap()
    }

    fn verify(password: &Password, hash: Option<&str>) -> Match {
        Hasher::take().unwrap().verify(password, hash)
    }

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[test]
    fn a_password_matches_its_own_hash_alone() {
        let (right, wrong) = (password("correct horse"), password("correct horsf"));
        let (one, other) = (hash(&right), hash(&right));
        assert_ne!(one, other, "each has a salt of its own");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_eq!(verify(&right, Some(&one)), Match::Yes);
        assert_eq!(verify(&wrong, Some(&one)), Match::No);
        assert_eq!(verify(&right, None), Match::No);
        for unknown in [
            "",
            "plain",
            "$2b$12$abcdefghijklmnopqrstuv",
            // A cost that would block other logins, the faulty kind, and a character that ASCII has not.
            "$2b$15$fooTSU/ZqBEqXmbPFZmDSu4Ld0obDGNOcBg4pZyb0wpAULQYC5FpC",
            "$2x$04$fooTSU/ZqBEqXmbPFZmDSu4Ld0obDGNOcBg4pZyb0wpAULQYC5FpC",
            "$2b$04$éooTSU/ZqBEqXmbPFZmDSu4Ld0obDGNOcBg4pZyb0wpAULQYC5Fp",
            "$argon2id$v=19$m=1048576,t=2,p=1$bm9ib2R5J3Mgc2FsdCEh$Z1xkBh2bEMgdOvb3oJeIWQqYBJzfa1tXc0Z0fB4Vq0Y",
            "!",
            "$scrypt$ln=15,r=8,p=1$aaaa$bbbb",
        ] {
            assert_eq!(
                verify(&right, Some(unknown)),
                Match::Unreadable,
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
            Match::YesOutdated
        );
        assert_eq!(verify(&password("another one"), Some(&old)), Match::No);
    }

    #[test]
    fn a_bcrypt_hash_is_outdated_except_for_a_password_it_did_not_read_to_its_end() {
        // Made by Python's bcrypt 5.0.0: of "correct horse", and of 72 times "x".
        let short = "$2b$04$kvuLU2O0rLbglJS5Ozfli.YJ56NjKLUpognEgi./XCUdymk6hLIga";
        let long = "$2b$04$.ve9TA8cM1svJIDAFWZXbulF8luSuaMSS/21utF5/hN8TGuQtb1VW";
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let short = short.replace("$2b$", kind);
            assert!(is_readable(&short));
            let matched = |text| verify(&password(text), Some(&short));
            assert_eq!(matched("correct horse"), Match::YesOutdated, "{kind}");
            assert_eq!(matched("correct horsf"), Match::No, "{kind}");
        }
        for (length, expected) in [
            (71, Match::No),
            (72, Match::YesOutdated),
            (73, Match::Yes),
            (128, Match::Yes),
        ] {
            let matched = verify(&password(&"x".repeat(length)), Some(long));
            assert_eq!(matched, expected, "{length}");
        }
    }

    #[test]
    fn memory_for_the_hash_of_another_program_is_returned() {
        let hash = "$argon2id$v=19$m=65536,t=1,p=4$bm9ib2R5J3Mgc2FsdCEh$Z1xkBh2bEMgdOvb3oJeIWQqYBJzfa1tXc0Z0fB4Vq0Y";
        assert_eq!(verify(&password("correct horse"), Some(hash)), Match::No);
        let held = lock(&MEMORY);
        assert!(
            held.iter()
                .all(|memory| memory.capacity() <= MEMORY_KIB as usize)
        );
    }

    #[test]
    fn a_wait_for_a_hashing_has_a_deadline() {
        let limit = Duration::from_millis(50);
        let mut held = Vec::new();
        let refused = loop {
            match Hasher::take_within(limit) {
                Ok(hasher) => held.push(hasher),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, "no password could be hashed within 50ms");
        assert!(held.len() <= *AT_ONCE);
        drop(held);
        assert!(Hasher::take().is_ok());
    }

    #[test]
    fn the_dummy_costs_as_much_as_a_new_hash() {
        assert!(is_current(&PasswordHash::new(DUMMY).unwrap()));
    }
}
