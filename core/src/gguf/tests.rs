//! The parser against files built byte by byte, and against every truncation of them.

use std::vec::Vec;

use super::*;

fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

/// Fixed start of a file of version 3.
fn header(tensors: u64, metadata: u64) -> Vec<u8> {
    let mut f = b"GGUF".to_vec();
    f.extend(3u32.to_le_bytes());
    f.extend(tensors.to_le_bytes());
    f.extend(metadata.to_le_bytes());
    f
}

/// A file with a value of every type, and one F32 tensor of 2 x 4.
fn sample() -> Vec<u8> {
    let mut f = header(1, 3);
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
    assert_eq!(
        g.get("general.architecture").unwrap().as_str(),
        Some("llama")
    );
    assert_eq!(
        g.get_scoped("llama", "block_count").unwrap().as_u64(),
        Some(30)
    );
    assert!(g.get_scoped("llama", "block_coun").is_none());
    let nested = g.get("nested").unwrap().as_array().unwrap();
    let inner: Vec<usize> = nested
        .into_iter()
        .map(|v| v.as_array().unwrap().len())
        .collect();
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

/// The sample with each `new` written over its bytes from `at` on.
fn changed(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = sample();
    for (at, new) in changes {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

#[test]
fn each_defect_is_named_with_its_place() {
    const HUGE: &[u8] = &u64::MAX.to_le_bytes();
    let (tensor, missing) = (0, 32);
    for (changes, error) in [
        (&[(3, &b"f"[..])][..], GgufError::NotGguf),
        (&[(4, &[1])], GgufError::UnsupportedVersion(1)),
        (
            &[(4, &[0, 0, 0, 3])],
            GgufError::UnsupportedVersion(3 << 24),
        ),
        (&[(8, HUGE)], GgufError::CountTooLarge { offset: 8 }),
        (&[(16, HUGE)], GgufError::CountTooLarge { offset: 16 }),
        (&[(24, HUGE)], GgufError::CountTooLarge { offset: 24 }),
        (&[(32, &[0xff])], GgufError::NameNotUtf8 { offset: 32 }),
        (
            &[(52, &[13])],
            GgufError::UnknownValueType {
                offset: 52,
                value_type: 13,
            },
        ),
        (
            &[(120, &[14])],
            GgufError::UnknownValueType {
                offset: 120,
                value_type: 14,
            },
        ),
        (&[(124, HUGE)], GgufError::CountTooLarge { offset: 124 }),
        (&[(136, HUGE)], GgufError::CountTooLarge { offset: 136 }),
        (&[(183, &[0xff])], GgufError::NameNotUtf8 { offset: 183 }),
        (&[(191, &[0])], GgufError::BadDimensions { tensor }),
        (&[(191, &[5])], GgufError::BadDimensions { tensor }),
        (&[(195, &[0])], GgufError::BadDimensions { tensor }),
        (
            &[(202, &[0x40]), (203, &[8])],
            GgufError::BadTensorSize { tensor },
        ),
        (
            &[(202, &[0x40]), (203, &[8]), (211, &[99])],
            GgufError::BadTensorSize { tensor },
        ),
        (&[(211, &[2])], GgufError::BadTensorSize { tensor }),
        (&[(215, &[8])], GgufError::MisalignedTensor { tensor }),
        (
            &[(215, &[32])],
            GgufError::TensorOutOfFile { tensor, missing },
        ),
        (
            &[(203, &[4])],
            GgufError::TensorOutOfFile { tensor, missing },
        ),
    ] {
        assert_eq!(
            Gguf::parse(&changed(changes)).err(),
            Some(error),
            "{changes:?}"
        );
    }
    assert_eq!(
        Gguf::parse(&sample()[..97]).err(),
        Some(GgufError::Truncated { offset: 94 })
    );
}

#[test]
fn an_offset_past_all_addresses_is_out_of_the_file() {
    let bytes = changed(&[(215, &[0xe0]), (216, &[0xff; 7])]);
    assert!(
        matches!(Gguf::parse(&bytes), Err(GgufError::TensorOutOfFile { tensor: 0, missing }) if missing > 1 << 31)
    );
}

#[test]
fn a_tensor_of_an_unknown_format_is_listed_without_data() {
    let bytes = changed(&[(211, &[99])]);
    let tensor = Gguf::parse(&bytes).unwrap().tensor("blk.12.w").unwrap();
    assert_eq!(
        (tensor.format(), tensor.ggml_type(), tensor.rows()),
        (None, 99, 2)
    );
    assert!(tensor.data().is_empty());
}

#[test]
fn alignments_are_powers_of_two_within_bounds() {
    let parse = |value_type: u8, value: u32| {
        let key = b"general.alignment";
        let bytes = changed(&[(77, key), (94, &[value_type]), (98, &value.to_le_bytes())]);
        Gguf::parse(&bytes).map(|g| g.alignment())
    };
    assert_eq!(parse(4, 8), Ok(8));
    assert_eq!(parse(5, 16), Ok(16));
    for bad in [0, 1, 4, 24, 131072, u32::MAX] {
        assert_eq!(parse(4, bad), Err(GgufError::BadAlignment(bad.into())));
    }
    assert_eq!(parse(5, u32::MAX), Err(GgufError::AlignmentNotInteger));
    assert_eq!(parse(6, 32), Err(GgufError::AlignmentNotInteger));
}

/// A file whose only entry, `x`, is `depth` nested arrays of one element each, around the byte 7.
fn nested(depth: usize) -> Vec<u8> {
    let mut f = header(0, 1);
    string(&mut f, b"x");
    f.extend(9u32.to_le_bytes());
    for level in 1..=depth {
        f.extend(if level < depth { 9u32 } else { 0 }.to_le_bytes());
        f.extend(1u64.to_le_bytes());
    }
    f.push(7);
    f
}

#[test]
fn arrays_nest_to_the_limit_and_no_deeper() {
    let deepest = nested(MAX_ARRAY_DEPTH);
    let mut value = Gguf::parse(&deepest).unwrap().get("x").unwrap();
    for _ in 0..MAX_ARRAY_DEPTH {
        value = value.as_array().unwrap().into_iter().next().unwrap();
    }
    assert_eq!(value.as_u64(), Some(7));
    let offset = 24 + 8 + 1 + 4 + 12 * MAX_ARRAY_DEPTH;
    for depth in [MAX_ARRAY_DEPTH + 1, 100_000] {
        assert_eq!(
            Gguf::parse(&nested(depth)).err(),
            Some(GgufError::NestedTooDeep { offset })
        );
    }
}

/// A file with entries of these keys, and tensors of these names with so many elements of one byte
/// (I8) from an offset on.
fn file_of(keys: &[&str], tensors: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut f = header(tensors.len() as u64, keys.len() as u64);
    for key in keys {
        string(&mut f, key.as_bytes());
        f.extend([0; 4 + 1]);
    }
    let mut end = 0;
    for (name, offset, len) in tensors {
        string(&mut f, name.as_bytes());
        f.extend(1u32.to_le_bytes());
        f.extend(len.to_le_bytes());
        f.extend(24u32.to_le_bytes());
        f.extend(offset.to_le_bytes());
        end = end.max(offset + len);
    }
    f.resize(f.len().next_multiple_of(32) + end as usize, 0);
    f
}

#[test]
fn names_that_are_there_twice_are_refused() {
    // Within a block of names that is held at a time, and across several.
    for count in [2, 5, NAMES, NAMES + 1, 3 * NAMES] {
        let names: Vec<_> = (0..count).map(|i| std::format!("name.{i}")).collect();
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let tensors = |names: &[&str]| {
            let tensors: Vec<_> = names.iter().map(|name| (*name, 0, 1)).collect();
            Gguf::parse(&file_of(&[], &tensors)).err()
        };
        let keys = |names: &[&str]| Gguf::parse(&file_of(names, &[])).err();
        assert_eq!((keys(&names), tensors(&names)), (None, None));
        for (first, tensor) in [
            (0, count - 1),
            (count / 2 - 1, count / 2),
            (count / 3, count - 1),
        ] {
            let mut names = names.clone();
            names[tensor] = names[first];
            assert_eq!(
                tensors(&names),
                Some(GgufError::DuplicateTensor { tensor, first })
            );
            let before: usize = names[..tensor].iter().map(|name| 8 + name.len() + 5).sum();
            let offset = header(0, 0).len() + before;
            assert_eq!(keys(&names), Some(GgufError::DuplicateKey { offset }));
        }
    }
}

#[test]
fn tensors_that_share_a_part_of_their_data_are_refused() {
    let parse = |tensors: &[(&str, u64, u64)]| Gguf::parse(&file_of(&[], tensors)).err();
    let overlap = |tensor, other| Some(GgufError::OverlappingTensors { tensor, other });
    // In the order of their data, and in others.
    assert_eq!(parse(&[("a", 0, 32), ("b", 32, 64), ("c", 96, 1)]), None);
    assert_eq!(parse(&[("a", 96, 1), ("b", 0, 32), ("c", 32, 64)]), None);
    // The same data twice is no fault.
    assert_eq!(parse(&[("a", 0, 33), ("b", 0, 33), ("c", 64, 1)]), None);
    assert_eq!(parse(&[("a", 64, 1), ("b", 0, 33), ("c", 0, 33)]), None);
    for (offsets, error) in [
        ([(0, 33), (32, 8), (64, 8)], (1, 0)),
        ([(0, 32), (32, 33), (64, 8)], (2, 1)),
        ([(64, 8), (32, 33), (0, 32)], (1, 0)),
        ([(0, 33), (64, 8), (32, 8)], (2, 0)),
        ([(0, 64), (0, 32), (64, 8)], (1, 0)),
        ([(64, 8), (0, 64), (0, 32)], (2, 1)),
        ([(32, 8), (64, 8), (0, 128)], (2, 0)),
    ] {
        let [a, b, c]: [(u64, u64); 3] = offsets;
        let tensors = [("a", a.0, a.1), ("b", b.0, b.1), ("c", c.0, c.1)];
        assert_eq!(parse(&tensors), overlap(error.0, error.1), "{offsets:?}");
    }
    // More than are held at a time, from the last to the first; the fault at any distance.
    let count = 1000;
    let names: Vec<_> = (0..count).map(|i| std::format!("t{i}")).collect();
    let good: Vec<_> = names
        .iter()
        .zip((0..count).rev())
        .map(|(name, i)| (name.as_str(), 32 * i, 32))
        .collect();
    assert_eq!(parse(&good), None);
    for (tensor, other) in [(1, 0), (999, 0), (600, 300), (999, 998)] {
        let mut bad = good.clone();
        bad[tensor].1 = bad[other].1;
        bad[tensor].2 = 31;
        assert_eq!(parse(&bad), overlap(tensor, other));
    }
}

/// With a million of the smallest values and the largest numbers of entries and tensors, anything
/// quadratic would not end.
#[test]
fn small_entries_by_the_million_take_linear_time() {
    const MANY: u64 = if cfg!(miri) { 100 } else { 1_000_000 };
    const TENSORS: u64 = if cfg!(miri) { 100 } else { MAX_TENSORS as u64 };
    const ENTRIES: u64 = if cfg!(miri) { 100 } else { MAX_ENTRIES as u64 };
    let mut f = header(TENSORS, ENTRIES);
    for i in 0..ENTRIES - 1 {
        string(&mut f, std::format!("{i}").as_bytes());
        f.extend([0; 4 + 1]);
    }
    string(&mut f, b"");
    f.extend([9, 0, 0, 0, 9, 0, 0, 0]);
    f.extend(MANY.to_le_bytes());
    for _ in 0..MANY {
        f.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    for i in (0..TENSORS).rev() {
        string(&mut f, std::format!("{i}").as_bytes());
        f.extend([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        f.extend([0; 4]);
        f.extend((32 * i).to_le_bytes());
    }
    f.resize(f.len().next_multiple_of(32) + 32 * TENSORS as usize, 0);
    let g = Gguf::parse(&f).unwrap();
    assert_eq!(
        (g.metadata().count(), g.tensors().count()),
        (ENTRIES as usize, TENSORS as usize)
    );
    let (_, last) = g.metadata().last().unwrap();
    let empty = last
        .as_array()
        .unwrap()
        .into_iter()
        .filter(|v| v.as_array().unwrap().is_empty());
    assert_eq!(empty.count(), MANY as usize);
    assert!(g.get("absent").is_none() && g.tensor("absent").is_none());
    f[8..16].copy_from_slice(&(MAX_TENSORS as u64 + 1).to_le_bytes());
    assert_eq!(
        Gguf::parse(&f).err(),
        Some(GgufError::TooManyTensors(MAX_TENSORS + 1))
    );
    f[8..16].copy_from_slice(&TENSORS.to_le_bytes());
    f[16..24].copy_from_slice(&(MAX_ENTRIES as u64 + 1).to_le_bytes());
    assert_eq!(
        Gguf::parse(&f).err(),
        Some(GgufError::TooManyEntries(MAX_ENTRIES + 1))
    );
}

#[test]
fn messages_are_one_clause_with_the_numbers_that_matter() {
    for (error, numbers) in [
        (GgufError::NotGguf, &[][..]),
        (GgufError::UnsupportedVersion(77), &["77"]),
        (GgufError::Truncated { offset: 77 }, &["77"]),
        (GgufError::CountTooLarge { offset: 77 }, &["77"]),
        (
            GgufError::UnknownValueType {
                offset: 77,
                value_type: 88,
            },
            &["77", "88"],
        ),
        (GgufError::NestedTooDeep { offset: 77 }, &["77", "4"]),
        (GgufError::NameNotUtf8 { offset: 77 }, &["77"]),
        (GgufError::TooManyTensors(77), &["77"]),
        (GgufError::TooManyEntries(77), &["77"]),
        (GgufError::DuplicateKey { offset: 77 }, &["77"]),
        (
            GgufError::DuplicateTensor {
                tensor: 77,
                first: 88,
            },
            &["77", "88"],
        ),
        (
            GgufError::OverlappingTensors {
                tensor: 77,
                other: 88,
            },
            &["77", "88"],
        ),
        (GgufError::BadAlignment(77), &["77"]),
        (GgufError::AlignmentNotInteger, &[]),
        (GgufError::BadDimensions { tensor: 77 }, &["77"]),
        (GgufError::BadTensorSize { tensor: 77 }, &["77"]),
        (GgufError::MisalignedTensor { tensor: 77 }, &["77"]),
        (
            GgufError::TensorOutOfFile {
                tensor: 77,
                missing: 88,
            },
            &["77", "88"],
        ),
    ] {
        let text = std::format!("{error}");
        assert!(numbers.iter().all(|n| text.contains(n)), "{text}");
        assert!(
            text.len() > 20 && !text.ends_with('.') && !text.contains(". "),
            "{text}"
        );
    }
}

#[test]
fn keys_behind_lists_of_strings_are_found() {
    // More lists than the parser notes the ends of, of many lengths, some empty.
    let lens = [3usize, 40, 0, 17, 5, 90, 1, 33];
    let mut f = header(0, 2 * lens.len() as u64);
    for (i, len) in lens.into_iter().enumerate() {
        string(&mut f, std::format!("list{i}").as_bytes());
        f.extend(9u32.to_le_bytes());
        f.extend(8u32.to_le_bytes());
        f.extend((len as u64).to_le_bytes());
        for j in 0..len {
            string(&mut f, std::format!("{i}-{j}").as_bytes());
        }
        string(&mut f, std::format!("key{i}").as_bytes());
        f.extend(4u32.to_le_bytes());
        f.extend((100 + i as u32).to_le_bytes());
    }
    let file = Gguf::parse(&f).unwrap();
    assert_eq!(file.metadata().count(), 2 * lens.len());
    for (i, len) in lens.into_iter().enumerate() {
        let key = file.get(&std::format!("key{i}")).unwrap();
        assert_eq!(key.as_u64(), Some(100 + i as u64));
        let list = file.get(&std::format!("list{i}")).unwrap();
        let strings: Vec<Vec<u8>> = list
            .as_array()
            .unwrap()
            .into_iter()
            .map(|value| value.as_bytes().unwrap().to_vec())
            .collect();
        let written: Vec<Vec<u8>> = (0..len)
            .map(|j| std::format!("{i}-{j}").into_bytes())
            .collect();
        assert_eq!(strings, written);
    }
}

#[test]
fn tensors_are_found_by_the_parts_of_their_names() {
    let names = ["blk.1.a", "blk.1.b", "blk.11.a", "blk.1.ab", "ab", "blk.1"];
    let mut f = header(names.len() as u64, 0);
    for (i, name) in names.iter().enumerate() {
        string(&mut f, name.as_bytes());
        let rank = 1 + i % 4;
        f.extend((rank as u32).to_le_bytes());
        for dim in 0..rank {
            f.extend(if dim == 0 { 8u64 + i as u64 } else { 1 }.to_le_bytes());
        }
        f.extend(0u32.to_le_bytes());
        f.extend((64 * i as u64).to_le_bytes());
    }
    f.resize(f.len().next_multiple_of(32) + 64 * names.len(), 0);
    let file = Gguf::parse(&f).unwrap();
    let cols = |tensor: Option<TensorInfo<'_>>| tensor.map(|tensor| tensor.cols());
    for (i, name) in names.iter().enumerate() {
        assert_eq!(cols(file.tensor(name)), Some(8 + i), "{name}");
    }
    assert_eq!(cols(file.layer_tensor(1, "b")), Some(9));
    assert_eq!(cols(file.layer_tensor(11, "a")), Some(10));
    assert_eq!(cols(file.layer_tensor(1, "ab")), Some(11));
    for missing in ["blk.1.c", "a", "", "blk.1.abc"] {
        assert!(file.tensor(missing).is_none(), "{missing}");
    }
    assert!(file.layer_tensor(2, "a").is_none());
}
