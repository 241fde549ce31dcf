//! Decodes chunked bodies (RFC 9112, section 7.1) as their bytes arrive.
//!
//! Chunk extensions and trailer fields are limited in size and ignored. A trailer field must not count as a header field.

use std::borrow::Cow;

use crate::http::error::Error;

/// Most bytes of chunk extensions and trailers, together, that a body may carry.
const EXTRAS_MAX: usize = 16 * 1024;

/// Decodes a chunked body.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: ChunkState,
    /// The most bytes of the body that may still come.
    room: usize,
    largest: usize,
    extras: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// In a chunk's size; the number of digits that have been read.
    Size {
        size: usize,
        digits: u8,
    },
    /// In a chunk's extensions.
    Extension {
        size: usize,
    },
    /// Before the LF that ends the line with the size.
    SizeEnd {
        size: usize,
    },
    /// In a chunk's data.
    Data {
        left: usize,
    },
    /// Before the CR, then the LF, after a chunk's data.
    DataCr,
    DataLf,
    /// At the start of a trailer line, in its name, in its value, before its LF, and before the LF of the empty line that ends the
    /// body.
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl ChunkedDecoder {
    /// A decoder for a body of at most `largest` bytes.
    pub fn new(largest: usize) -> ChunkedDecoder {
        ChunkedDecoder {
            state: ChunkState::Size { size: 0, digits: 0 },
            room: largest,
            largest,
            extras: 0,
        }
    }

    /// Whether the body is whole.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Appends the part of the body in `input` to `body`. Returns how many bytes of `input` belong to the body.
    ///
    /// # Errors
    /// The body is malformed or too large. The connection must then be closed.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Error> {
        let mut at = 0;
        while let Some(byte) = input.get(at).copied().filter(|_| !self.is_done()) {
            if let ChunkState::Data { left } = self.state {
                let taken = left.min(input.len() - at);
                body.extend_from_slice(input.get(at..at + taken).unwrap_or_default());
                at += taken;
                self.state = match left - taken {
                    0 => ChunkState::DataCr,
                    left => ChunkState::Data { left },
                };
                continue;
            }
            self.state = self.step(byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<ChunkState, Error> {
        use ChunkState::*;
        let too_large = || Error::PayloadTooLarge(self.largest);
        Ok(match (self.state, byte) {
            // Leading zeros are allowed (RFC 9112, section 7.1). Fifteen digits, which hold 60 bits, cannot overflow.
            (Size { digits: 15, .. }, _) if byte.is_ascii_hexdigit() => Err(too_large())?,
            (Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
                let size = size << 4 | digit;
                let digits = digits + 1;
                Size { size, digits }
            }
            (Size { digits: 0, .. }, _) => Err(malformed("a chunk has no size"))?,
            (Size { size, .. } | Extension { size }, b'\r') => SizeEnd { size },
            (Size { size, .. }, b';') => Extension { size },
            (Size { .. }, _) => Err(malformed("a chunk's size is not a hexadecimal number"))?,
            (SizeEnd { size: 0 }, b'\n') => TrailerStart,
            (SizeEnd { size: left }, b'\n') => {
                self.room = self.room.checked_sub(left).ok_or_else(too_large)?;
                Data { left }
            }
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size { size: 0, digits: 0 },
            (DataCr | DataLf, _) => Err(malformed("a chunk is longer than its size"))?,
            (TrailerStart, b'\r') => EndLf,
            (Trailer, b'\r') => TrailerLf,
            (TrailerName, b':') => Trailer,
            (TrailerStart | TrailerName, _) if is_token(byte) => self.extra(byte, TrailerName)?,
            (TrailerStart | TrailerName, _) => {
                Err(malformed("a trailer field's name is malformed"))?
            }
            (state @ (Extension { .. } | Trailer), _) => self.extra(byte, state)?,
            (TrailerLf, b'\n') => TrailerStart,
            (EndLf, b'\n') => Done,
            _ => Err(malformed(
                "a line of a chunked body does not end with CR LF",
            ))?,
        })
    }

    /// Counts a byte of an extension or a trailer, after which the state is `next`.
    fn extra(&mut self, byte: u8, next: ChunkState) -> Result<ChunkState, Error> {
        self.extras += 1;
        if byte.is_ascii_control() && byte != b'\t' {
            return Err(malformed(
                "a chunk extension or trailer holds a control character",
            ));
        }
        if self.extras > EXTRAS_MAX {
            return Err(malformed("the chunk extensions and trailers are too long"));
        }
        Ok(next)
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn malformed(text: &'static str) -> Error {
    Error::BadRequest(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8], largest: usize) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut decoder = ChunkedDecoder::new(largest);
        let mut body = Vec::new();
        let used = decoder
            .decode(input, &mut body)
            .map_err(|error| error.status())?;
        Ok((body, used, decoder.is_done()))
    }

    #[test]
    fn chunks_are_joined() {
        let input = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000\r\nX-Trailer: 1\r\n\r\nGET /";
        assert_eq!(
            decode(input, 13),
            Ok((b"abc0123456789".to_vec(), input.len() - 5, true))
        );
        assert_eq!(decode(b"0\r\n\r\n", 0), Ok((Vec::new(), 5, true)));
        assert_eq!(decode(b"3\r\nab", 9), Ok((b"ab".to_vec(), 5, false)));
        let zeros = b"000000000000003\r\nabc\r\n0\r\n\r\n";
        assert_eq!(decode(zeros, 9), Ok((b"abc".to_vec(), zeros.len(), true)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            &b"\r\n"[..],
            b"x\r\n",
            b"+3\r\nabc\r\n",
            b"-1\r\n",
            b"3 \r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b"3\nabc\r\n",
            b"3\rabc",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"3\r\nabc\rX",
            b";x\r\n",
            b"0\r\n\n",
            b"0\r\nX: 1\n\r\n",
            b"3;x\ny\r\nabc\r\n",
            b"0\r\n\rX",
            b"0\r\n X: 1\r\n\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\nX: 1\r\n 2\r\n\r\n",
        ] {
            assert_eq!(
                decode(input, 99),
                Err(400),
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
        assert_eq!(
            decode(
                format!("1;{}\r\n", "x".repeat(EXTRAS_MAX + 1)).as_bytes(),
                99
            ),
            Err(400)
        );
    }

    #[test]
    fn a_body_over_the_limit_is_refused_before_it_comes() {
        assert_eq!(decode(b"64\r\n", 99), Err(413));
        assert_eq!(decode(b"ffffffffffffffff\r\n", 99), Err(413));
        assert_eq!(
            decode(
                b"32\r\n01234567890123456789012345678901234567890123456789\r\n32\r\n",
                99
            ),
            Err(413)
        );
    }

    proptest! {
        #[test]
        fn any_body_survives_any_cutting(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8), cut in 1_usize..9
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let mut decoder = ChunkedDecoder::new(1000);
            let mut body = Vec::new();
            for piece in input.chunks(cut) {
                prop_assert_eq!(decoder.decode(piece, &mut body).unwrap(), piece.len());
            }
            prop_assert!(decoder.is_done());
            prop_assert_eq!(body, chunks.concat());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&input, 50);
        }
    }
}
