//! Forged and altered tokens: each is 401, and the server continues.
//!
//! One table of attacks is tried with every kind of key.

use std::collections::HashSet;
use std::net::TcpListener;

use ring::hmac::{HMAC_SHA384, HMAC_SHA512};
use serde_json::{Value, json};
use todo_api::auth::jwks::{Keys, Location, Timing};
use todo_api::auth::token::TokenVerifier;

use crate::support::app::SECRET;
use crate::support::http::try_send;
use crate::support::jwt::{Key, base64url, claims, key_set, now};
use crate::support::{Actor, Answer, TestApp};

/// What is wrong with a token, and the token.
type Attack = (String, String);

fn ask(app: &TestApp, token: &str) -> Answer {
    Actor::with_token(app.address, token).get("/api/tasks")
}

/// A server with the tests' secret and the public parts of these keys.
fn server(keys: &[&Key]) -> TestApp {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, key_set(keys)).unwrap();
    let location = Location::File(file.path().to_owned());
    let keys = Keys::load(&location, Timing::default()).unwrap();
    TestApp::with_verifier(TokenVerifier::new(SECRET, None).trusting(keys))
}

#[test]
fn forged_and_altered_tokens_are_refused_for_every_kind_of_key() {
    let keys = [
        Key::secret(SECRET),
        Key::ed25519("ed-1"),
        Key::p256("ec-1"),
        Key::rsa("rsa-1"),
        // Keys of this algorithm have no `kid`, neither in the set nor in tokens.
        Key::p256("").nameless(),
    ];
    let other = Key::ed25519("ed-2");
    let [_, ed, ec, rsa, nameless] = &keys;
    let app = server(&[ed, ec, rsa, nameless, &other]);
    let (trap, address) = trap();
    for key in &keys {
        let good = key.token(&claims("u1"));
        assert_eq!(ask(&app, &good).status, 200, "{}", key.algorithm());
        let others: Vec<&Key> = keys
            .iter()
            .chain([&other])
            .filter(|other| !std::ptr::eq(*other, key))
            .collect();
        let mut attacks = on_the_header(key);
        attacks.extend(on_the_claims(key));
        attacks.extend(on_the_form(key));
        attacks.extend(on_the_signature(key));
        attacks.extend(with_other_keys(key, &others, &address));
        let names: HashSet<&str> = attacks.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.len() == attacks.len() && names.len() >= 100);
        for (name, token) in &attacks {
            refused(&app, &format!("{}: {name}", key.algorithm()), token);
        }
        assert_eq!(ask(&app, &good).status, 200, "the server still answers");
    }
    assert!(trap.accept().is_err(), "the server has not connected");
}

/// An address with an attacker's keys, to which the server must not connect.
fn trap() -> (TcpListener, String) {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let address = format!("http://{}/jwks.json", trap.local_addr().unwrap());
    (trap, address)
}

fn refused(app: &TestApp, name: &str, token: &str) {
    let answer = ask(app, token);
    assert_eq!(answer.status, 401, "{name}: {answer:?}");
    let sentence = answer.expect_error(401, "UNAUTHORIZED");
    assert!(
        sentence.starts_with("Invalid token: "),
        "{name}: {sentence}"
    );
    let challenge = answer.header("WWW-Authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""),
        "{name}: {challenge}"
    );
    assert!(
        token.len() < 8 || !answer.body.contains(token),
        "{name}: the token is not repeated"
    );
}

/// Wrong headers, with a valid signature.
fn on_the_header(key: &Key) -> Vec<Attack> {
    let good = claims("u1");
    let text = good.to_string();
    let mut attacks: Vec<Attack> = Vec::new();
    let mut with = |members: Value| {
        attacks.push((members.to_string(), key.token_with(&members, &good)));
    };
    for alg in [
        "none",
        "None",
        "nOnE",
        "NONE",
        "",
        "HS384",
        "HS512",
        "RS384",
        "RS512",
        "PS256",
        "ES384",
        "ES512",
        "ES256K",
        "Ed448",
        "dir",
        "A128KW",
        "hs256",
        "eddsa",
        "es256",
        "rs256",
        "HS256 ",
        " ES256",
        "HS256\u{0}",
    ] {
        with(json!({ "alg": alg }));
    }
    for alg in ["HS256", "EdDSA", "Ed25519", "ES256", "RS256"] {
        let names_it = alg == key.algorithm() || (alg, key.algorithm()) == ("Ed25519", "EdDSA");
        if !names_it {
            with(json!({ "alg": alg }));
        }
    }
    for alg in [
        json!(null),
        json!(256),
        json!(["HS256"]),
        json!({}),
        json!(true),
    ] {
        with(json!({ "alg": alg }));
    }
    for crit in [
        json!([]),
        json!(["exp"]),
        json!(["b64"]),
        json!(null),
        json!("exp"),
    ] {
        with(json!({ "crit": crit }));
    }
    for b64 in [json!(false), json!(null), json!("false")] {
        with(json!({ "b64": b64 }));
    }
    with(json!({ "b64": false, "crit": ["b64"] }));
    for typ in [
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!("JOSE"),
        json!(""),
        json!(7),
        json!(null),
    ] {
        with(json!({ "typ": typ }));
    }
    let header = key.header().to_string();
    let deep = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
    for (name, header) in [
        ("alg absent", r#"{"typ":"JWT"}"#.to_owned()),
        ("alg twice", header.replacen('{', r#"{"alg":"none","#, 1)),
        (
            "alg twice, the same",
            header.replacen('{', &format!(r#"{{"alg":"{}","#, key.algorithm()), 1),
        ),
        (
            "crit twice",
            header.replacen('{', r#"{"crit":[],"crit":[],"#, 1),
        ),
        ("no object", format!("[{header}]")),
        (
            "a list of the members",
            format!(r#"["{}","JWT"]"#, key.algorithm()),
        ),
        ("a text", r#""HS256""#.to_owned()),
        ("null", "null".to_owned()),
        ("nothing", String::new()),
        ("no JSON", "{".to_owned()),
        ("something behind it", format!("{header}{{}}")),
        ("a byte order mark", format!("\u{feff}{header}")),
        (
            "nested deep",
            header.replacen('{', &format!(r#"{{"b64":{deep},"#), 1),
        ),
    ] {
        attacks.push((format!("a header: {name}"), key.raw_token(header, &text)));
    }
    attacks.push((
        "a header: no UTF-8".to_owned(),
        key.raw_token(b"{\"alg\":\"\xff\"}", &text),
    ));
    attacks
}

/// Wrong claims, with a valid signature.
fn on_the_claims(key: &Key) -> Vec<Attack> {
    let exp = now() + 60;
    let header = key.header().to_string();
    let mut attacks: Vec<Attack> = [
        json!({ "sub": "u1" }),
        json!({ "sub": "u1", "exp": null }),
        json!({ "sub": "u1", "exp": "9999999999" }),
        json!({ "sub": "u1", "exp": "" }),
        json!({ "sub": "u1", "exp": -1 }),
        json!({ "sub": "u1", "exp": [exp] }),
        json!({ "sub": "u1", "exp": { "at": exp } }),
        json!({ "sub": "u1", "exp": true }),
        json!({ "sub": "u1", "exp": 1e300 }),
        json!({ "sub": "u1", "exp": i64::MAX }),
        json!({ "sub": "u1", "exp": u64::MAX }),
        json!({ "sub": "u1", "exp": exp * 1000 }),
        json!({ "sub": "u1", "exp": exp, "nbf": exp }),
        json!({ "sub": "u1", "exp": exp, "nbf": "0" }),
        json!({ "sub": "u1", "exp": exp, "nbf": null }),
        json!({ "sub": "u1", "exp": exp, "nbf": 1e300 }),
        json!({ "exp": exp }),
        json!({ "sub": null, "id": "u1", "exp": exp }),
        json!({ "sub": "", "id": "u1", "exp": exp }),
        json!({ "sub": 1, "exp": exp }),
        json!({ "sub": true, "exp": exp }),
        json!({ "sub": ["u1"], "exp": exp }),
        json!({ "sub": { "id": "u1" }, "exp": exp }),
        json!({ "sub": "u1\u{0}", "exp": exp }),
        json!({ "sub": "u1\n", "exp": exp }),
        json!({ "sub": "u".repeat(256), "exp": exp }),
        json!({ "user_id": 1, "userId": null, "id": [], "exp": exp }),
    ]
    .iter()
    .map(|claims| (claims.to_string(), key.token(claims)))
    .collect();
    let deep = format!("{}{}", "{\"x\":".repeat(1_500), "}".repeat(1_500));
    for (name, claims) in [
        ("exp not finite", r#"{"sub":"u1","exp":1e999}"#.to_owned()),
        ("exp NaN", r#"{"sub":"u1","exp":NaN}"#.to_owned()),
        ("exp Infinity", r#"{"sub":"u1","exp":Infinity}"#.to_owned()),
        (
            "exp beyond 64 bits",
            r#"{"sub":"u1","exp":99999999999999999999999}"#.to_owned(),
        ),
        (
            "exp in hexadecimal",
            r#"{"sub":"u1","exp":0x7fffffff}"#.to_owned(),
        ),
        (
            "exp twice",
            format!(r#"{{"sub":"u1","exp":1,"exp":{exp}}}"#),
        ),
        (
            "sub twice",
            format!(r#"{{"sub":"u2","sub":"u1","exp":{exp}}}"#),
        ),
        (
            "sub twice, once escaped",
            format!(r#"{{"sub":"u2","\u0073ub":"u1","exp":{exp}}}"#),
        ),
        (
            "iss twice",
            format!(r#"{{"iss":"a","iss":"b","sub":"u1","exp":{exp}}}"#),
        ),
        (
            "a lone surrogate",
            format!(r#"{{"sub":"\ud800","exp":{exp}}}"#),
        ),
        ("no JSON", "{".to_owned()),
        ("nothing", String::new()),
        ("a list", format!(r#"[{exp},null,"u1"]"#)),
        ("a text", r#""u1""#.to_owned()),
        ("null", "null".to_owned()),
        (
            "something behind them",
            format!(r#"{{"sub":"u1","exp":{exp}}}{{}}"#),
        ),
        ("a comment", format!(r#"{{"sub":"u1",/**/"exp":{exp}}}"#)),
        (
            "a comma too many",
            format!(r#"{{"sub":"u1","exp":{exp},}}"#),
        ),
        (
            "nested deep",
            format!(r#"{{"sub":"u1","exp":{exp},"aud":{deep}}}"#),
        ),
        // A nested token (RFC 7519, section 5.2) is not accepted.
        ("a token", key.token(&claims("u1"))),
    ] {
        attacks.push((format!("claims: {name}"), key.raw_token(&header, claims)));
    }
    attacks.push((
        "claims: no UTF-8".to_owned(),
        key.raw_token(
            &header,
            [
                b"{\"sub\":\"\xff\",\"exp\":",
                exp.to_string().as_bytes(),
                b"}",
            ]
            .concat(),
        ),
    ));
    attacks
}

/// Wrong encodings.
fn on_the_form(key: &Key) -> Vec<Attack> {
    let good = claims("u1");
    let token = key.token(&good);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let flattened = json!({ "payload": payload, "protected": header, "signature": signature });
    let general = json!({ "payload": payload, "signatures": [
        { "protected": header, "signature": signature },
        { "protected": header, "signature": base64url([0; 64]) },
    ] });
    // A header and claims that need no padding, so that one character more or less is the only error.
    let huge = json!({ "sub": "u1", "exp": now() + 60, "x": "x".repeat(10_500), "sid": "no UUID", "iss": "todo-api", "nbf": "0" });
    [
        ("no JWT", "opaque-session-token".to_owned()),
        ("a UUID", "0190b7c6-0000-7000-8000-000000000000".to_owned()),
        ("a refresh token", base64url([7; 32])),
        ("an API token", format!("todo_{}", base64url([7; 32]))),
        ("dots alone", "..".to_owned()),
        ("more dots", ".....".to_owned()),
        ("one part", header.to_owned()),
        ("two parts", message.to_owned()),
        (
            "two parts, the claims and signature",
            format!("{payload}.{signature}"),
        ),
        ("a signature alone", format!("..{signature}")),
        ("no header", format!(".{payload}.{signature}")),
        ("no claims", key.signed(&format!("{header}."))),
        ("claims that are detached", format!("{header}..{signature}")),
        ("no signature", format!("{message}.")),
        ("two signatures", format!("{token}.{signature}")),
        (
            "five parts, as encrypted ones have",
            format!("{token}.{payload}.{signature}"),
        ),
        ("a dot before it", format!(".{token}")),
        ("cut short", token[..token.len() - 4].to_owned()),
        ("cut in the middle", token[..token.len() / 2].to_owned()),
        ("longer", format!("{token}AAAA")),
        ("padded", format!("{token}=")),
        ("padded twice", format!("{token}==")),
        (
            "a padded header",
            key.signed(&format!("{header}=.{payload}")),
        ),
        ("padded claims", key.signed(&format!("{header}.{payload}="))),
        (
            "a header with loose bits",
            key.signed(&loose(header, payload, true)),
        ),
        (
            "claims with loose bits",
            key.signed(&loose(header, payload, false)),
        ),
        (
            "a signature with loose bits",
            format!("{message}.{}", with_loose_bits(signature)),
        ),
        ("no base64", format!("{message}.!!!!")),
        (
            "base64 with + and /",
            key.signed(&format!("{header}.{payload}++//")),
        ),
        ("percent signs", token.replace('.', "%2E")),
        ("a space within", token.replacen('.', ". ", 1)),
        ("a tab within", token.replacen('.', ".\t", 1)),
        ("quotation marks", format!("\"{token}\"")),
        ("another token behind it", format!("{token} {token}")),
        (
            "another one after a comma",
            format!("{token}, Bearer {token}"),
        ),
        ("JSON, flattened", flattened.to_string()),
        ("JSON with two signatures", general.to_string()),
        (
            "large",
            format!(
                "{}.{}.{}",
                "A".repeat(5_000),
                "A".repeat(5_000),
                "A".repeat(5_000)
            ),
        ),
        ("large and well signed", key.token(&huge)),
    ]
    .into_iter()
    .map(|(name, token)| (name.to_owned(), token))
    .collect()
}

/// A message in which the last character of one part has unused bits set (RFC 4648, section 3.5).
fn loose(header: &str, payload: &str, in_header: bool) -> String {
    let spoiled = |part: &str| {
        // White space changes the length of the JSON and not its meaning.
        let mut text = String::from_utf8(base64_decoded(part)).unwrap();
        while text.len() % 3 != 1 {
            text.push(' ');
        }
        with_loose_bits(&base64url(text))
    };
    if in_header {
        format!("{}.{payload}", spoiled(header))
    } else {
        format!("{header}.{}", spoiled(payload))
    }
}

fn base64_decoded(part: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap()
}

/// The same bytes, written with the lowest bit of the last character set.
fn with_loose_bits(part: &str) -> String {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert!(
        !part.len().is_multiple_of(4),
        "there is room for loose bits"
    );
    let last = DIGITS.find(part.chars().last().unwrap()).unwrap();
    assert_eq!(last & 1, 0);
    format!("{}{}", &part[..part.len() - 1], &DIGITS[last + 1..last + 2])
}

/// Invalid signatures.
fn on_the_signature(key: &Key) -> Vec<Attack> {
    let token = key.token(&claims("u1"));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = base64_decoded(signature);
    let length = signature.len();
    let mut flipped = signature.clone();
    flipped[length / 2] ^= 1;
    let mut attacks: Vec<(&str, Vec<u8>)> = vec![
        // CVE-2022-21449: some libraries accept r and s of zero.
        ("zeros", vec![0; length]),
        ("ones", vec![1; length]),
        ("all bits set", vec![0xff; length]),
        ("another bit", flipped),
        ("shorter", signature[..length - 1].to_vec()),
        ("longer by a zero", [&signature[..], &[0]].concat()),
        (
            "longer by a zero before it",
            [&[0], &signature[..]].concat(),
        ),
        ("twice", [&signature[..], &signature[..]].concat()),
        ("reversed", signature.iter().rev().copied().collect()),
        ("one byte", vec![0]),
        ("64 zeros and one", vec![0; 65]),
        ("of other claims", key.signature("eyJhbGciOiJub25lIn0.e30")),
    ];
    match key.algorithm() {
        "EdDSA" => {
            // RFC 8032, section 8.4: a signature with the order of the group added to its second half must be refused.
            let mut more = signature.clone();
            let order: [u8; 32] = [
                0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
                0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            ];
            let mut carry = 0;
            for (byte, add) in more[32..].iter_mut().zip(order) {
                let sum = u16::from(*byte) + u16::from(add) + carry;
                (*byte, carry) = (sum as u8, sum >> 8);
            }
            attacks.push(("malleable", more));
            let identity = [&[1][..], &[0; 63]].concat();
            attacks.push(("of small order", identity));
        }
        "ES256" => {
            // r and s equal to the group's order are equivalent to zero.
            let order = [
                0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
                0x25, 0x51,
            ];
            attacks.push(("of the group's order", [order, order].concat()));
            attacks.push(("with s of zero", [&signature[..32], &[0; 32]].concat()));
            attacks.push(("with r of zero", [&[0; 32], &signature[32..]].concat()));
            let number = |part: &[u8]| [&[0x02, 33, 0], part].concat();
            let body = [number(&signature[..32]), number(&signature[32..])].concat();
            attacks.push(("in DER", [&[0x30, 70][..], &body].concat()));
        }
        _ => {}
    }
    attacks
        .into_iter()
        .map(|(name, signature)| {
            let token = format!("{message}.{}", base64url(signature));
            (format!("a signature: {name}"), token)
        })
        .collect()
}

/// Valid signatures by an attacker's key, and attempts to make the server use that key.
fn with_other_keys(key: &Key, others: &[&Key], address: &str) -> Vec<Attack> {
    let good = claims("u1");
    let mut attacks: Vec<Attack> = Vec::new();
    let mut push = |name: String, token: String| attacks.push((name, token));
    let header = key.header().to_string();
    let message = format!("{}.{}", base64url(&header), base64url(good.to_string()));
    for (number, other) in others.iter().enumerate() {
        // Without a kid, the server tries all keys of the algorithm.
        if key.id.is_some() || key.algorithm() != other.algorithm() {
            let signature = base64url(other.signature(&message));
            push(
                format!("signed with key {number}"),
                format!("{message}.{signature}"),
            );
        }
        // The name of another key, if keys of this algorithm have names.
        if key.algorithm() != "HS256" && other.id.is_some() && other.id != key.id {
            let named = key.token_with(&json!({ "kid": other.id }), &good);
            push(format!("named as key {number}"), named);
        }
        // A public key must not work as a secret, in any encoding.
        let public = other.public_bytes();
        for (form, secret) in [
            ("bytes", public.clone()),
            ("text", base64url(&public).into_bytes()),
            ("JSON", other.jwk().to_string().into_bytes()),
            ("PEM", pem(&public).into_bytes()),
            (
                "n or x",
                other.jwk()["n"]
                    .as_str()
                    .or(other.jwk()["x"].as_str())
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec(),
            ),
        ] {
            let forged = Key::secret(&secret);
            push(
                format!("signed with the {form} of key {number}"),
                forged.token(&good),
            );
            if let Some(id) = &other.id {
                let named = forged.token_with(&json!({ "kid": id }), &good);
                push(
                    format!("signed with the {form} of key {number}, and its name"),
                    named,
                );
            }
        }
    }
    push("an empty secret".into(), Key::secret("").token(&good));
    push(
        "HS384 with the secret".into(),
        Key::hmac(HMAC_SHA384, SECRET).token(&good),
    );
    push(
        "HS512 with the secret".into(),
        Key::hmac(HMAC_SHA512, SECRET).token(&good),
    );

    // An attacker's key in every header member that can carry one. The server must ignore them all.
    for attacker in [
        Key::secret("evil evil evil evil evil evil evil"),
        Key::ed25519("ed-1"),
        Key::p256("ec-1"),
    ] {
        let mut jwk = attacker.jwk();
        if jwk["kty"] == "oct" {
            jwk["k"] = json!(base64url("evil evil evil evil evil evil evil"));
        }
        for members in [
            json!({}),
            json!({ "jwk": jwk }),
            json!({ "jku": address }),
            json!({ "x5u": address }),
            json!({ "x5c": [base64url(attacker.public_bytes())], "x5t": "AAAA" }),
            json!({ "jku": address, "jwk": jwk, "kid": key.id }),
        ] {
            let name = format!("an attacker's {} {members}", attacker.algorithm());
            push(name, attacker.token_with(&members, &good));
        }
    }
    // Unknown names of keys. Tokens signed with the secret may have any name.
    if key.algorithm() != "HS256" {
        for id in [
            json!(""),
            json!("no such key"),
            json!("../../../../dev/null"),
            json!("/proc/self/environ"),
            json!("' OR '1'='1"),
            json!("x' UNION SELECT 'secret' --"),
            json!("ed-1\u{0}"),
            json!("ED-1"),
            json!("x".repeat(4_000)),
            json!(null),
            json!(1),
            json!(["ed-1"]),
        ] {
            push(
                format!("kid {id}"),
                key.token_with(&json!({ "kid": id }), &good),
            );
        }
    }
    attacks
}

fn pem(bytes: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn keys_in_the_header_of_a_good_token_are_ignored() {
    let ed = Key::ed25519("ed-1");
    let app = server(&[&ed]);
    let (trap, address) = trap();
    let secret = Key::secret(SECRET);
    for members in [
        json!({ "jku": address }),
        json!({ "x5u": address }),
        json!({ "jwk": { "kty": "oct", "k": "ZXZpbA" } }),
        json!({ "x5c": ["evil"] }),
        json!({ "typ": "at+jwt" }),
        json!({ "typ": "jwt" }),
        json!({ "b64": true }),
    ] {
        for key in [&secret, &ed] {
            let token = key.token_with(&members, &claims("u1"));
            ask(&app, &token).expect(200);
        }
    }
    let named = secret.token_with(&json!({ "kid": "../../dev/null" }), &claims("u1"));
    ask(&app, &named).expect(200);
    let renamed = ed.token_with(&json!({ "alg": "Ed25519" }), &claims("u1"));
    ask(&app, &renamed).expect(200);
    assert!(trap.accept().is_err(), "the server has not connected");
}

#[test]
fn without_a_key_set_only_the_secret_verifies_tokens() {
    let app = TestApp::start();
    for key in [Key::ed25519("a"), Key::p256("b"), Key::rsa("c")] {
        let answer = ask(&app, &key.token(&claims("u1")));
        let sentence = answer.expect_error(401, "UNAUTHORIZED");
        assert_eq!(sentence, "Invalid token: only HS256 is accepted");
    }
}

#[test]
fn a_token_of_a_megabyte_is_refused() {
    let app = TestApp::start();
    let value = format!("Bearer {}", "A".repeat(1_000_000));
    // The edge answers while the client is still sending.
    if let Ok(answer) = try_send(
        app.address,
        "GET",
        "/api/tasks",
        &[("Authorization", &value)],
        None,
    ) {
        answer.expect_error(431, "HEADERS_TOO_LARGE");
    }
    app.user("u1").get("/api/tasks").expect(200);
}

#[test]
fn an_expired_token_has_its_own_error_for_every_kind_of_key() {
    let keys = [
        Key::secret(SECRET),
        Key::ed25519("a"),
        Key::p256("b"),
        Key::rsa("c"),
    ];
    let app = server(&[&keys[1], &keys[2], &keys[3]]);
    for key in &keys {
        let answer = ask(&app, &key.token(&json!({ "sub": "u1", "exp": now() - 31 })));
        assert_eq!(
            answer.expect_error(401, "TOKEN_EXPIRED"),
            "Token has expired"
        );
        let recent = key.token(&json!({ "sub": "u1", "exp": now() - 5 }));
        ask(&app, &recent).expect(200);
    }
}
