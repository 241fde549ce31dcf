//! A set of public keys (RFC 7517), and the keys in it that may have signed a token.
//!
//! Type and curve of a key determine its algorithm; it is used with no other. A key that cannot or must not be used is left out with a
//! reason, and the others are used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Keys that are tried for one token, at most: each costs a check of the signature.
const TRIED_MAX: usize = 4;
/// Accepted sizes of RSA moduli, in bits: smaller ones are unsafe, larger ones slow. `ring` checks no others.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of a set that can be used.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    /// Why keys were left out, one sentence each, without any content of the keys.
    pub left_out: Vec<String>,
}

struct PublicKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The keys of a set that may have signed a token.
pub enum Candidates<'s> {
    /// One of these.
    Keys(Vec<&'s DecodingKey>),
    /// The set has no such key.
    Unknown,
    /// More than [`TRIED_MAX`], and the token does not name its key.
    TooMany,
}

/// The algorithm of this name, if a key set may have keys for it.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        // RFC 9864: the name of EdDSA on this curve.
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        "ES256" => Some(Algorithm::ES256),
        "RS256" => Some(Algorithm::RS256),
        _ => None,
    }
}

impl KeySet {
    /// Reads a set from JSON.
    ///
    /// # Errors
    /// One sentence if this is not a key set.
    pub fn parse(json: &[u8]) -> Result<KeySet, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(json)
            .map_err(|_| "it is no JSON Web Key Set, an object with a list \"keys\"".to_owned())?;
        let mut set = KeySet::default();
        for (number, key) in (1..).zip(document.keys) {
            match PublicKey::read(key) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.left_out.push(format!("key {number}: {reason}")),
            }
        }
        Ok(set)
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed a token with this algorithm and this `kid`; without `kid`, all keys of the algorithm.
    pub fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Candidates<'_> {
        let keys: Vec<&DecodingKey> = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm)
            .filter(|key| id.is_none() || key.id.as_deref() == id)
            .map(|key| &key.key)
            .take(TRIED_MAX + 1)
            .collect();
        match keys.len() {
            0 => Candidates::Unknown,
            1..=TRIED_MAX => Candidates::Keys(keys),
            _ => Candidates::TooMany,
        }
    }
}

/// The members of a JSON Web Key that are read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<Value>,
}

impl PublicKey {
    fn read(jwk: Value) -> Result<PublicKey, &'static str> {
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| "it is no JSON Web Key")?;
        if jwk.kty == "oct" {
            return Err("it is symmetric: everybody who can read it could sign tokens");
        }
        if jwk.d.is_some() {
            return Err("it contains its private part, which must stay secret");
        }
        if jwk.r#use.as_deref().is_some_and(|r#use| r#use != "sig") {
            return Err("it is not for signatures");
        }
        let can_verify = |operations: &Vec<String>| operations.iter().any(|one| one == "verify");
        if !jwk.key_ops.as_ref().is_none_or(can_verify) {
            return Err("it is not for checking signatures");
        }
        let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, ed25519(&jwk)?),
            ("EC", Some("P-256")) => (Algorithm::ES256, p256(&jwk)?),
            ("RSA", _) => (Algorithm::RS256, rsa(&jwk)?),
            _ => return Err("only Ed25519, P-256 and RSA keys are used"),
        };
        // RFC 8725, section 3.1: a key is used with one algorithm.
        let named = jwk.alg.as_deref();
        if named.is_some_and(|named| self::algorithm(named) != Some(algorithm)) {
            return Err("its alg is not EdDSA, ES256 or RS256, or does not fit its type");
        }
        Ok(PublicKey {
            id: jwk.kid,
            algorithm,
            key,
        })
    }
}

fn decoded(part: Option<&String>) -> Result<Vec<u8>, &'static str> {
    part.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .ok_or("a part of it is missing or no base64url")
}

/// RFC 8037, section 2.
fn ed25519(jwk: &Jwk) -> Result<DecodingKey, &'static str> {
    let point = decoded(jwk.x.as_ref())?;
    if point.len() != 32 {
        return Err("its x must have 32 bytes");
    }
    Ok(DecodingKey::from_ed_der(&point))
}

/// RFC 7518, section 6.2.1: both coordinates have their full length.
fn p256(jwk: &Jwk) -> Result<DecodingKey, &'static str> {
    let (x, y) = (decoded(jwk.x.as_ref())?, decoded(jwk.y.as_ref())?);
    if x.len() != 32 || y.len() != 32 {
        return Err("its x and y must have 32 bytes each");
    }
    // SEC 1, section 2.3.3: a point that is not compressed.
    Ok(DecodingKey::from_ec_der(&[&[4], &x[..], &y[..]].concat()))
}

/// RFC 7518, section 6.3.1. Some software writes numbers with leading zeros.
fn rsa(jwk: &Jwk) -> Result<DecodingKey, &'static str> {
    let (n, e) = (decoded(jwk.n.as_ref())?, decoded(jwk.e.as_ref())?);
    let (n, e) = (without_zeros(&n), without_zeros(&e));
    let unused_bits = n.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = n.len() * 8 - unused_bits;
    if !RSA_BITS.contains(&bits) {
        return Err("an RSA key must have 2048 to 8192 bits");
    }
    if ![&[3][..], &[1, 0, 1]].contains(&e) {
        return Err("the exponent of an RSA key must be 65537 or 3");
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().take_while(|byte| **byte == 0).count();
    number.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xff; length])
    }

    fn ed(id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": bytes(32)})
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_key_is_for_the_algorithm_of_its_type() {
        let ec = json!({"kty": "EC", "crv": "P-256", "x": bytes(32), "y": bytes(32)});
        let rsa = json!({"kty": "RSA", "n": bytes(256), "e": "AQAB"});
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            key
        };
        let zeros = URL_SAFE_NO_PAD.encode([&[0, 0][..], &[0xff; 256]].concat());
        for (key, algorithm) in [
            (ed("a"), Algorithm::EdDSA),
            (with(&ed("a"), "alg", json!("EdDSA")), Algorithm::EdDSA),
            (with(&ed("a"), "alg", json!("Ed25519")), Algorithm::EdDSA),
            (with(&ed("a"), "use", json!("sig")), Algorithm::EdDSA),
            (
                with(&ed("a"), "key_ops", json!(["verify"])),
                Algorithm::EdDSA,
            ),
            (ec.clone(), Algorithm::ES256),
            (rsa.clone(), Algorithm::RS256),
            (with(&rsa, "n", json!(zeros)), Algorithm::RS256),
            (with(&rsa, "e", json!("AAEAAQ")), Algorithm::RS256),
        ] {
            let set = set(std::slice::from_ref(&key));
            assert_eq!(
                set.keys.first().map(|key| key.algorithm),
                Some(algorithm),
                "{key} {:?}",
                set.left_out
            );
        }
        for key in [
            json!({"kty": "oct", "k": bytes(32), "alg": "HS256"}),
            json!({"kty": "oct", "k": bytes(32), "alg": "EdDSA", "crv": "Ed25519", "x": bytes(32)}),
            json!({"kty": "OKP", "crv": "X25519", "x": bytes(32)}),
            json!({"kty": "OKP", "crv": "Ed448", "x": bytes(57)}),
            json!({"kty": "OKP", "x": bytes(32)}),
            json!({"kty": "EC", "crv": "P-384", "x": bytes(48), "y": bytes(48)}),
            json!({"kty": "EC", "crv": "secp256k1", "x": bytes(32), "y": bytes(32)}),
            json!({"kty": "EC", "crv": "Ed25519", "x": bytes(32), "y": bytes(32)}),
            json!({"crv": "Ed25519", "x": bytes(32)}),
            json!("key"),
            json!(null),
            with(&ed("a"), "alg", json!("ES256")),
            with(&ed("a"), "alg", json!("HS256")),
            with(&ed("a"), "use", json!("enc")),
            with(&ed("a"), "key_ops", json!(["encrypt"])),
            with(&ed("a"), "kid", json!(7)),
            with(&ed("a"), "d", json!(bytes(32))),
            with(&ed("a"), "x", json!(bytes(31))),
            with(&ed("a"), "x", json!(bytes(33))),
            with(&ed("a"), "x", json!("!")),
            with(&ec, "y", json!(bytes(31))),
            with(&ec, "alg", json!("ES384")),
            with(&rsa, "alg", json!("RS512")),
            with(&rsa, "alg", json!("PS256")),
            with(&rsa, "alg", json!("HS256")),
            with(&rsa, "n", json!(bytes(128))),
            with(&rsa, "n", json!(bytes(255))),
            with(&rsa, "n", json!(bytes(1025))),
            with(&rsa, "n", json!("")),
            with(&rsa, "e", json!("AQ")),
            with(&rsa, "e", json!("Ag")),
            with(&rsa, "e", json!("")),
            with(&rsa, "e", json!(bytes(9))),
        ] {
            let set = set(std::slice::from_ref(&key));
            assert!(set.is_empty() && set.left_out.len() == 1, "{key}");
        }
    }

    #[test]
    fn a_key_that_is_left_out_leaves_the_others() {
        let set = set(&[json!({"kty": "oct", "k": "secret"}), ed("a"), json!(7)]);
        assert_eq!((set.len(), set.left_out.len()), (1, 2));
        assert!(!set.left_out.concat().contains("secret"));
        assert!(set.left_out[0].starts_with("key 1: it is symmetric"));
    }

    #[test]
    fn other_json_is_not_a_key_set() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[]"#,
            "<html>",
        ] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(KeySet::parse(br#"{"keys":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn a_kid_picks_and_without_one_few_keys_are_tried() {
        let ids = ["a", "b", "c", "d"].map(ed);
        let found = |set: &KeySet, algorithm, id| match set.candidates(algorithm, id) {
            Candidates::Keys(keys) => keys.len() as i32,
            Candidates::Unknown => 0,
            Candidates::TooMany => -1,
        };
        let few = set(&ids);
        assert_eq!(found(&few, Algorithm::EdDSA, Some("b")), 1);
        assert_eq!(found(&few, Algorithm::EdDSA, Some("e")), 0);
        assert_eq!(found(&few, Algorithm::EdDSA, Some("")), 0);
        assert_eq!(found(&few, Algorithm::ES256, Some("b")), 0);
        assert_eq!(found(&few, Algorithm::EdDSA, None), 4);
        let many = set(&[&ids[..], &[ed("e")]].concat());
        assert_eq!(found(&many, Algorithm::EdDSA, None), -1);
        assert_eq!(found(&many, Algorithm::EdDSA, Some("e")), 1);
    }
}
