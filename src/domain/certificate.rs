//! Reads two facts of an X.509 certificate that rustls does not provide (RFC 5280, section 4.1).

use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The object identifier of the algorithm a certificate is signed with, in DER without tag and length.
pub fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (_signed_part, rest) = take(certificate, SEQUENCE)?;
    let (algorithm, _) = take(rest, SEQUENCE)?;
    let (identifier, _) = take(algorithm, OBJECT_IDENTIFIER)?;
    Some(identifier)
}

/// When a certificate expires.
pub fn not_after(certificate: &[u8]) -> Option<OffsetDateTime> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (signed_part, _) = take(certificate, SEQUENCE)?;
    // Version 1 certificates leave the version out.
    let rest = take(signed_part, VERSION).map_or(signed_part, |(_, rest)| rest);
    let (_serial_number, rest) = take(rest, INTEGER)?;
    let (_signature, rest) = take(rest, SEQUENCE)?;
    let (_issuer, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let (_, _not_before, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // Two digits of the year, 1950 to 2049.
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let format = format_description!("[year][month][day][hour][minute][second]Z");
    let time = PrimitiveDateTime::parse(&text, format).ok()?;
    Some(time.assume_utc())
}

/// The content of the first element, which must have this tag, and what follows it.
fn take(der: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == expected).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it (X.690, section 8.1).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The number of bytes of the length; four are enough for any certificate.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            let length = bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
            (length, rest)
        }
        // DER does not allow the length 0x80.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn certificate(not_after: OffsetDateTime) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["x".repeat(200)]).unwrap();
        parameters.not_after = not_after;
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_expiry_is_read_in_both_formats_of_time() {
        for end in [
            datetime!(1999-12-31 23:59:59 UTC),
            datetime!(2049-12-31 23:59:59 UTC),
            datetime!(2050-01-01 0:00 UTC),
        ] {
            assert_eq!(not_after(&certificate(end)), Some(end));
        }
    }

    #[test]
    fn the_signature_algorithm_is_read() {
        // ecdsa-with-SHA256, 1.2.840.10045.4.3.2
        let expected = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let certificate = certificate(datetime!(2030-01-01 0:00 UTC));
        assert_eq!(signature_algorithm(&certificate), Some(&expected[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), cut in 0..600usize) {
            let _ = (not_after(&bytes), signature_algorithm(&bytes));
            let mut certificate = certificate(datetime!(2030-01-01 0:00 UTC));
            certificate.truncate(cut);
            let _ = (not_after(&certificate), signature_algorithm(&certificate));
        }
    }
}
