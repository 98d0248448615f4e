//! Inputs of the fuzz target `load`: files, and changes to good ones.

/// Good files, with and without a tokenizer; an input can change one of them instead of being a
/// file itself.
const GOOD: [&[u8]; 3] = [
    include_bytes!("../data/random-gqa-q4_0.gguf"),
    include_bytes!("../data/other.gguf"),
    include_bytes!("../data/random-gqa-q8_0.gguf"),
];

/// Returns the file that a fuzz target's input stands for: the input itself, if it starts like a
/// file; otherwise a good file (chosen by the first byte) with changes. A change is an offset of
/// two bytes, a kind, and the bytes that the kind takes.
pub fn file_of(input: &[u8]) -> Vec<u8> {
    let Some((&base, mut changes)) = input.split_first() else {
        return Vec::new();
    };
    if input.starts_with(b"GGUF") {
        return input.to_vec();
    }
    let mut file = GOOD[usize::from(base) % GOOD.len()].to_vec();
    while let Some((&[low, high, kind], rest)) = changes.split_first_chunk::<3>() {
        let at = usize::from(u16::from_le_bytes([low, high])).min(file.len());
        let len = match kind % 8 {
            0..3 => 1,
            3..5 => 4,
            5..7 => 8,
            _ => {
                file.truncate(at);
                0
            }
        };
        let bytes = &rest[..len.min(rest.len())];
        let room = bytes.len().min(file.len() - at);
        file[at..at + room].copy_from_slice(&bytes[..room]);
        changes = &rest[bytes.len()..];
    }
    file
}
