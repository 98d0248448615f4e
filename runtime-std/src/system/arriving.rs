//! Models that arrive from a pipe or a device: as much is read as the model has, and of what is no
//! model hardly anything.

use std::io::{self, Read};

use brooklet_core::gguf::{Gguf, GgufError};

/// Bytes that tell a model from anything else.
const BEGINNING: usize = 24;

/// Bytes after which the first look is taken for the end of the header.
const FIRST: usize = 1 << 16;

/// Longest header: several times that of the largest vocabulary.
const LONGEST_HEADER: usize = 256 << 20;

/// Most bytes that are read beyond what the header is known to need.
const AHEAD: usize = 64 << 20;

/// Reads a model, up to its last tensor at least. Where it ends early, or is no model, that shows
/// when these bytes are parsed.
///
/// # Errors
/// Those of `from`; a header without an end; more bytes than there is memory for.
pub(super) fn read(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut wanted = BEGINNING;
    loop {
        bytes.try_reserve(wanted)?;
        let read = from.by_ref().take(wanted as u64).read_to_end(&mut bytes)?;
        if read < wanted {
            return Ok(bytes);
        }
        wanted = match Gguf::parse(&bytes) {
            Err(GgufError::Truncated { .. } | GgufError::CountTooLarge { .. }) => {
                if bytes.len() >= LONGEST_HEADER {
                    return Err(io::Error::new(
                        io::ErrorKind::FileTooLarge,
                        format!("its header does not end within {LONGEST_HEADER} bytes"),
                    ));
                }
                bytes.len().max(FIRST)
            }
            // Only the first tensor that lacks bytes is named.
            Err(GgufError::TensorOutOfFile { missing, .. }) => {
                missing.max(bytes.len().min(AHEAD) / 2)
            }
            Ok(_) | Err(_) => return Ok(bytes),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is read of it.
    struct Counted<R>(R, usize);

    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(bytes)?;
            self.1 += read;
            Ok(read)
        }
    }

    fn model() -> Vec<u8> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../core/tests/data/random.gguf"
        );
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_model_is_read_whole_and_an_endless_tail_is_not() {
        let model = model();
        assert_eq!(read(&mut &model[..]).unwrap(), model);
        let mut endless = Counted(model.chain(io::repeat(0)), 0);
        let bytes = read(&mut endless).unwrap();
        assert!(bytes.starts_with(&model) && endless.1 < 3 * model.len());
        assert!(Gguf::parse(&bytes).is_ok());
    }

    #[test]
    fn little_is_read_of_what_is_no_model() {
        for start in [
            &b"\0\0\0\0"[..],
            b"y\ny\ny\n",
            b"GGUF\0\0\0\0",
            b"GGUF\0\0\0\x03",
        ] {
            let mut endless = Counted(start.chain(io::repeat(b'y')), 0);
            let bytes = read(&mut endless).unwrap();
            assert!(Gguf::parse(&bytes).is_err());
            assert_eq!(endless.1, BEGINNING);
        }
        assert_eq!(read(&mut &b"GGUF"[..]).unwrap(), b"GGUF");
        assert!(read(&mut io::empty()).unwrap().is_empty());
    }

    #[test]
    fn a_model_that_ends_early_is_read_to_its_end() {
        let model = model();
        for len in [30, 5000, model.len() - 1] {
            assert_eq!(read(&mut &model[..len]).unwrap(), &model[..len]);
        }
    }

    #[test]
    fn a_header_without_an_end_is_refused() {
        // One key whose text is said to be nearly endless.
        let mut start = b"GGUF\x03\0\0\0".to_vec();
        start.extend(0u64.to_le_bytes());
        start.extend(1u64.to_le_bytes());
        start.extend(1u64.to_le_bytes());
        start.extend(b"k\x08\0\0\0");
        start.extend((1u64 << 40).to_le_bytes());
        let mut endless = Counted(start.chain(io::repeat(0)), 0);
        let error = read(&mut endless).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(endless.1 <= 2 * LONGEST_HEADER);
    }
}
