//! The parser against files built byte by byte, and against every truncation of them.

use std::vec::Vec;

use super::*;

fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

/// A file with one of everything, and one F32 tensor of 2 x 4.
fn sample() -> Vec<u8> {
    let mut f = b"GGUF".to_vec();
    f.extend(3u32.to_le_bytes());
    f.extend(1u64.to_le_bytes());
    f.extend(3u64.to_le_bytes());
    string(&mut f, b"general.architecture");
    f.extend(8u32.to_le_bytes());
    string(&mut f, b"llama");
    string(&mut f, b"llama.block_count");
    f.extend(4u32.to_le_bytes());
    f.extend(30u32.to_le_bytes());
    string(&mut f, b"nested");
    f.extend(9u32.to_le_bytes());
    f.extend(9u32.to_le_bytes());
    f.extend(2u64.to_le_bytes());
    for part in [&[b"a".as_slice(), b"bc"][..], &[]] {
        f.extend(8u32.to_le_bytes());
        f.extend((part.len() as u64).to_le_bytes());
        for s in part {
            string(&mut f, s);
        }
    }
    string(&mut f, b"blk.12.w");
    f.extend(2u32.to_le_bytes());
    f.extend(4u64.to_le_bytes());
    f.extend(2u64.to_le_bytes());
    f.extend(0u32.to_le_bytes());
    f.extend(0u64.to_le_bytes());
    f.resize(f.len().next_multiple_of(32), 0);
    for i in 0..8 {
        f.extend((i as f32).to_le_bytes());
    }
    f
}

#[test]
fn reads_what_was_written() {
    let bytes = sample();
    let g = Gguf::parse(&bytes).unwrap();
    assert_eq!(g.version(), 3);
    assert_eq!(g.get("general.architecture").unwrap().as_str(), Some("llama"));
    assert_eq!(g.get_scoped("llama", "block_count").unwrap().as_u64(), Some(30));
    assert!(g.get_scoped("llama", "block_coun").is_none());
    let nested = g.get("nested").unwrap().as_array().unwrap();
    let inner: Vec<usize> = nested.into_iter().map(|v| v.as_array().unwrap().len()).collect();
    assert_eq!(inner, [2, 0]);
    let t = g.layer_tensor(12, "w").unwrap();
    assert_eq!(
        (t.cols(), t.rows(), t.format()),
        (4, 2, Some(crate::quant::Format::F32))
    );
    assert_eq!(t.data()[4..8], 1f32.to_le_bytes());
    assert!(g.layer_tensor(1, "w").is_none());
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample();
    for n in 0..bytes.len() {
        assert!(
            Gguf::parse(&bytes[..n]).is_err(),
            "accepted {n} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn every_byte_flip_is_survived() {
    let good = sample();
    for i in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[i] ^= 1 << bit;
            if let Ok(g) = Gguf::parse(&bytes) {
                assert_eq!(g.metadata().count(), g.metadata_count());
                assert_eq!(g.tensors().count(), g.tensor_count());
            }
        }
    }
}

#[test]
fn huge_counts_are_refused_without_walking() {
    let mut bytes = sample();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(
        Gguf::parse(&bytes).err(),
        Some(GgufError::CountTooLarge { offset: 8 })
    );
}
