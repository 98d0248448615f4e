//! Whole files: the same bytes from any number of threads, and what becomes of files and outputs
//! that are broken.

use brooklet_core::threads::SingleThread;

use super::*;
use crate::system::pool::Pool;

const MODEL: &[u8] = include_bytes!("../../../../core/tests/data/random.gguf");

fn target(name: &str) -> Target {
    name.parse().unwrap()
}

fn copy(model: &[u8], target: Target, threads: &dyn Threads) -> Result<Vec<u8>, QuantizeError> {
    // A broken header is refused where files are opened, before this module sees them.
    let file = Gguf::parse(model).map_err(|_| QuantizeError::Interrupted)?;
    let conversion = Conversion::plan(&file, target)?;
    let mut bytes = Vec::new();
    let len = conversion.write(&mut bytes, threads, &mut |_| true)?;
    assert_eq!(len, bytes.len() as u64);
    Ok(bytes)
}

/// A file with the one tensor `a.weight` of f32, `cols` wide.
fn model_of(values: &[f32], cols: usize) -> Vec<u8> {
    let mut header = Header::default();
    header
        .tensor("a.weight", &[cols, values.len() / cols], Format::F32)
        .unwrap();
    let mut body = header.write(Vec::new()).unwrap();
    body.write(
        &values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>(),
    )
    .unwrap();
    body.finish().unwrap().0
}

#[test]
fn the_same_file_whatever_the_threads() {
    // Four slabs and a bit: no number of threads divides them.
    let values: Vec<f32> = (0..4 * SLAB + 3 * 256)
        .map(|i| ((i * 2_654_435_761) % 4093) as f32 - 2000.0)
        .collect();
    let model = model_of(&values, 256);
    for name in ["F16", "Q4_1", "IQ4_NL", "Q4_K_S", "Q6_K"] {
        let expected = copy(&model, target(name), &SingleThread).unwrap();
        for workers in [2, 3, 7] {
            let pool = Pool::new(workers).unwrap();
            assert!(
                copy(&model, target(name), &pool).unwrap() == expected,
                "{name} {workers}"
            );
        }
        // One block after the other gives the same.
        let file = Gguf::parse(&expected).unwrap();
        let tensor = file.tensor("a.weight").unwrap();
        let format = tensor.format().unwrap();
        assert_eq!(format, target(name).format());
        for (values, bytes) in values
            .chunks(256)
            .zip(tensor.data().chunks(format.row_bytes(256).unwrap()))
        {
            let mut block = vec![0; bytes.len()];
            blocks::quantize(format, values, &mut block).unwrap();
            assert_eq!(block, bytes);
        }
    }
}

#[test]
fn the_summary_counts_what_is_written() {
    let file = Gguf::parse(MODEL).unwrap();
    let summary = Conversion::plan(&file, target("Q8_0")).unwrap().summary();
    let bytes = copy(MODEL, target("Q8_0"), &SingleThread).unwrap();
    let written = Gguf::parse(&bytes).unwrap();
    let count = |file: &Gguf<'_>| {
        file.tensors()
            .map(|tensor| tensor.data().len() as u64)
            .sum::<u64>()
    };
    assert_eq!(
        (summary.bytes_before, summary.bytes_after),
        (count(&file), count(&written))
    );
    assert_eq!(
        (summary.tensors, summary.converted, summary.requantized),
        (20, 14, 14)
    );
    assert_eq!(summary.formats["Q8_0"].0, 15);
    assert_eq!(written.get("general.file_type").unwrap().as_u64(), Some(7));
    assert!((8.5..9.0).contains(&summary.bits_per_weight()));
}

#[test]
fn values_that_are_not_finite_are_refused_wherever_they_stand() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (at, cols) in [(0, 32), (63, 32), (40, 64)] {
            let mut values = [1.0; 64];
            values[at] = value;
            // As one row it is copied, as two it is converted.
            let error = copy(&model_of(&values, cols), target("Q4_0"), &SingleThread).unwrap_err();
            assert_eq!(
                error.to_string(),
                "tensor \"a.weight\" holds a value that is not finite"
            );
        }
    }
}

#[test]
fn values_that_the_format_cannot_hold_are_refused() {
    let model = model_of(&[1e6; 64], 32);
    let error = copy(&model, target("F16"), &SingleThread).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor \"a.weight\" holds a value that is too large for F16"
    );
    assert!(copy(&model, target("Q8_0"), &SingleThread).is_ok());
}

#[test]
fn parts_and_overlapping_and_unknown_tensors_are_refused() {
    let refused = |model: &[u8]| {
        copy(model, target("Q8_0"), &SingleThread)
            .unwrap_err()
            .to_string()
    };
    let mut header = Header::default();
    header.set("split.count", Value::U16(3));
    let (part, _) = header.write(Vec::new()).unwrap().finish().unwrap();
    assert!(refused(&part).contains("one of 3 parts"));

    // The second tensor's offset, the last number of the table, is made the first's.
    let mut header = Header::default();
    for name in ["a.weight", "b.weight"] {
        header.tensor(name, &[256, 64], Format::F32).unwrap();
    }
    let mut body = header.write(Vec::new()).unwrap();
    (0..2).for_each(|_| body.write(&[0; 256 * 64 * 4]).unwrap());
    let mut twice = body.finish().unwrap().0;
    let file = Gguf::parse(&twice).unwrap();
    let (start, size) = (file.data_start(), 256 * 64 * 4);
    let at = (0..start - 8)
        .rfind(|&at| twice[at..at + 8] == (size as u64).to_le_bytes())
        .unwrap();
    twice[at..at + 8].fill(0);
    twice.truncate(start + size);
    assert_eq!(refused(&twice), "its tensors overlap");

    // The type stands before the offset; 16 is IQ2_XXS.
    let mut unknown = model_of(&[0.0; 512], 256);
    let start = (0..unknown.len())
        .rfind(|&at| unknown[at..].starts_with(b"a.weight"))
        .unwrap();
    let at = start + 8 + 4 + 2 * 8;
    assert_eq!(unknown[at..at + 4], [0; 4]);
    unknown[at] = 16;
    let sentence = refused(&unknown);
    assert!(sentence.contains("IQ2_XXS"), "{sentence}");
}

#[test]
fn broken_files_give_a_file_or_an_error() {
    for cut in (0..MODEL.len()).step_by(1009) {
        assert!(copy(&MODEL[..cut], target("Q4_0"), &SingleThread).is_err());
    }
    let mut written = 0;
    let mut bytes = MODEL.to_vec();
    for at in (0..4000).chain((4000..MODEL.len()).step_by(499)) {
        bytes[at] ^= 1 << (at % 8);
        if let Ok(copy) = copy(&bytes, target("Q5_0"), &SingleThread) {
            Gguf::parse(&copy).unwrap();
            written += 1;
        }
        bytes[at] = MODEL[at];
    }
    assert!(written > 0);
}

/// An output with room for so many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_fills() {
    let file = Gguf::parse(MODEL).unwrap();
    let conversion = Conversion::plan(&file, target("Q8_0")).unwrap();
    let write = |room| conversion.write(Disk(room), &SingleThread, &mut |_| true);
    let len = write(usize::MAX).unwrap() as usize;
    for room in (0..len).step_by(1777).chain([len - 1]) {
        match write(room) {
            Err(QuantizeError::Write(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull)
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(write(len).is_ok());
}

#[test]
fn whoever_watches_may_end_it() {
    let file = Gguf::parse(MODEL).unwrap();
    let conversion = Conversion::plan(&file, target("Q8_0")).unwrap();
    let mut seen = Vec::new();
    let result = conversion.write(io::sink(), &SingleThread, &mut |done| {
        seen.push(done);
        done < 5
    });
    assert!(matches!(result, Err(QuantizeError::Interrupted)));
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn targets_are_named_in_any_case() {
    for target in Target::ALL {
        assert_eq!(target.name().to_lowercase().parse(), Ok(target));
    }
    for name in ["", "Q4_K", "BF16", "F32"] {
        assert_eq!(name.parse::<Target>(), Err(TargetError));
    }
}
