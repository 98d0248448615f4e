//! Helpers that `const` code lacks: `?`, minimum and maximum, comparison of text,
//! and sentences with numbers ([`Message`]).

mod message;

pub use message::Message;

/// Evaluates to the value of a `Result`, or returns its error: `?` for `const fn`.
macro_rules! tri {
    ($e:expr) => {
        match $e {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}
pub(crate) use tri;

/// Returns the smaller number.
pub(crate) const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// Returns the larger number.
pub(crate) const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Returns the value, or `default` for `None`.
pub(crate) const fn or(value: Option<usize>, default: usize) -> usize {
    match value {
        Some(value) => value,
        None => default,
    }
}

/// Returns true if the bytes are equal.
pub(crate) const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Returns the length of the concatenation of `parts`.
pub(crate) const fn len_of_parts(parts: &[&str]) -> usize {
    let mut len = 0usize;
    let mut p = 0;
    while p < parts.len() {
        len = len.saturating_add(parts[p].len());
        p += 1;
    }
    len
}

/// Returns true if `text` is the concatenation of `parts`.
pub(crate) const fn same_parts(text: &[u8], parts: &[&str]) -> bool {
    if len_of_parts(parts) != text.len() {
        return false;
    }
    let mut at = 0;
    let mut p = 0;
    while p < parts.len() {
        let part = parts[p].as_bytes();
        let mut i = 0;
        while i < part.len() {
            if text[at + i] != part[i] {
                return false;
            }
            i += 1;
        }
        at += part.len();
        p += 1;
    }
    true
}
