//! Tokens of every kind, and the keys that sign them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Base64 of RFC 4648, section 5, without padding.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims that are valid for a minute.
pub fn claims(user: &str) -> Value {
    json!({ "sub": user, "exp": now() + 60 })
}

/// A key that signs tokens.
pub struct Key {
    /// Its name in a key set and in its tokens.
    pub id: Option<String>,
    kind: Kind,
}

enum Kind {
    Hmac(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    /// HS256 with this secret.
    pub fn secret(secret: impl AsRef<[u8]>) -> Key {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    /// HMAC with this hash.
    pub fn hmac(algorithm: hmac::Algorithm, secret: impl AsRef<[u8]>) -> Key {
        Key {
            id: None,
            kind: Kind::Hmac(hmac::Key::new(algorithm, secret.as_ref())),
        }
    }

    /// A new key for EdDSA.
    pub fn ed25519(id: &str) -> Key {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Key {
            id: Some(id.to_owned()),
            kind: Kind::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())),
        }
    }

    /// A new key for ES256.
    pub fn p256(id: &str) -> Key {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Key {
            id: Some(id.to_owned()),
            kind: Kind::P256(Box::new(
                EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap(),
            )),
        }
    }

    /// The only RS256 key of the tests, because `ring` makes no RSA keys.
    pub fn rsa(id: &str) -> Key {
        let pkcs8 = include_bytes!("../keys/rsa.pk8");
        Key {
            id: Some(id.to_owned()),
            kind: Kind::Rsa(Box::new(RsaKeyPair::from_pkcs8(pkcs8).unwrap())),
        }
    }

    /// The same key without a `kid`.
    pub fn nameless(self) -> Key {
        Key { id: None, ..self }
    }

    /// The name of the algorithm in tokens.
    pub fn algorithm(&self) -> &'static str {
        match &self.kind {
            Kind::Hmac(key) if key.algorithm() == hmac::HMAC_SHA256 => "HS256",
            Kind::Hmac(key) if key.algorithm() == hmac::HMAC_SHA384 => "HS384",
            Kind::Hmac(_) => "HS512",
            Kind::Ed25519(_) => "EdDSA",
            Kind::P256(_) => "ES256",
            Kind::Rsa(_) => "RS256",
        }
    }

    /// Its public part as in a key set.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.kind {
            Kind::Hmac(_) => json!({ "kty": "oct" }),
            Kind::Ed25519(key) => json!({
                "kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key()),
            }),
            Kind::P256(key) => {
                let point = key.public_key().as_ref();
                json!({
                    "kty": "EC", "crv": "P-256",
                    "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
                })
            }
            Kind::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({
                    "kty": "RSA",
                    "n": base64url(public.n),
                    "e": base64url(public.e),
                })
            }
        };
        jwk["alg"] = json!(self.algorithm());
        if let Some(id) = &self.id {
            jwk["kid"] = json!(id);
        }
        jwk
    }

    /// The bytes of its public part, which an attacker may try as a secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Hmac(_) => Vec::new(),
            Kind::Ed25519(key) => key.public_key().as_ref().to_vec(),
            Kind::P256(key) => key.public_key().as_ref().to_vec(),
            Kind::Rsa(key) => key.public_key().as_ref().to_vec(),
        }
    }

    /// Its signature.
    pub fn signature(&self, message: &str) -> Vec<u8> {
        let (message, random) = (message.as_bytes(), SystemRandom::new());
        match &self.kind {
            Kind::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Kind::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Kind::P256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Kind::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// The header of its tokens.
    pub fn header(&self) -> Value {
        let mut header = json!({ "alg": self.algorithm(), "typ": "JWT" });
        if let Some(id) = &self.id {
            header["kid"] = json!(id);
        }
        header
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.raw_token(self.header().to_string(), claims.to_string())
    }

    /// A token with these members added to its header, or replaced.
    pub fn token_with(&self, members: &Value, claims: &Value) -> String {
        let mut header = self.header();
        for (name, value) in members.as_object().unwrap() {
            header[name] = value.clone();
        }
        self.raw_token(header.to_string(), claims.to_string())
    }

    /// A token with these texts as header and claims, correctly signed.
    pub fn raw_token(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        self.signed(&format!("{}.{}", base64url(header), base64url(claims)))
    }

    /// This text followed by its signature.
    pub fn signed(&self, message: &str) -> String {
        format!("{message}.{}", base64url(self.signature(message)))
    }
}

/// A key set with these keys, as it is published.
pub fn key_set(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}
