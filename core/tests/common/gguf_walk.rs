//! Reads everything that a parsed file offers and checks the promises of the parser: the body of
//! the fuzz target, of the replay of its corpus and of the mutation tests.

use brooklet_core::gguf::{Array, Gguf, Value};
use brooklet_core::tensor::Matrix;

/// Number of entries for which look-ups are repeated: each look-up walks the file.
const LOOKUPS: usize = 64;

/// Length of the longest row that is dequantised.
const MAX_COLS: usize = 4096;

/// Parses `bytes` and, if they are a GGUF file, reads all of it.
///
/// # Panics
/// If a promise of the parser is broken.
pub fn walk(bytes: &[u8]) {
    let file = match Gguf::parse(bytes) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(!format!("{file:?}").is_empty());
    assert_eq!(file.metadata().count(), file.metadata_count());
    assert_eq!(file.tensors().count(), file.tensor_count());
    for (key, value) in file.metadata() {
        walk_value(value, bytes);
        assert!(!format!("{key:?}: {value:?}").is_empty());
    }
    for (key, _) in file.metadata().take(LOOKUPS) {
        assert!(file.get(key).is_some());
        if let Some((prefix, suffix)) = key.split_once('.') {
            assert!(file.get_scoped(prefix, suffix).is_some());
        }
    }
    walk_tensors(&file);
}

fn walk_value(value: Value<'_>, bytes: &[u8]) {
    if let Some(text) = value.as_str() {
        assert_eq!(value.as_bytes(), Some(text.as_bytes()));
    }
    if let Some(integer) = value.as_u64() {
        assert!(
            value.as_f32().is_none() && value.as_bool().is_none(),
            "{integer}"
        );
    }
    if let Some(array) = value.as_array() {
        walk_array(array, bytes);
    }
}

fn walk_array(array: Array<'_>, bytes: &[u8]) {
    assert!(array.len() <= bytes.len() && array.start() <= bytes.len());
    assert_eq!(array.is_empty(), array.into_iter().next().is_none());
    assert_eq!(array.into_iter().count(), array.len());
    let mut elements = array.elements();
    let mut position = elements.position();
    let mut index = 0;
    while let Some(element) = elements.next() {
        match array.get(index) {
            Some(same) if index < LOOKUPS => {
                assert_eq!(format!("{same:?}"), format!("{element:?}"))
            }
            Some(_) => {}
            None => assert!(element.as_bytes().is_some() || element.as_array().is_some()),
        }
        index += 1;
        if let Some(string) = element.as_bytes() {
            assert_eq!(array.string_at(position - array.start()), Some(string));
        }
        walk_value(element, bytes);
        position = elements.position();
    }
    assert!(array.get(index).is_none() && array.get(usize::MAX).is_none());
    for offset in [0, 1, bytes.len(), usize::MAX] {
        let string = array.string_at(offset);
        assert!(string.is_none_or(|s| s.len() < bytes.len()));
    }
}

fn walk_tensors(file: &Gguf<'_>) {
    let data_start = file.bytes().as_ptr().addr() + file.data_start();
    for (i, tensor) in file.tensors().enumerate() {
        assert!(!format!("{tensor:?}").is_empty());
        assert!((1..=4).contains(&tensor.rank()) && !tensor.dims().contains(&0));
        let elements = tensor.rows() * tensor.cols();
        if let Some(format) = tensor.format() {
            let row = format
                .row_bytes(tensor.cols())
                .expect("rows are whole blocks");
            assert_eq!(row * tensor.rows(), tensor.data().len());
            assert_eq!(
                (tensor.data().as_ptr().addr() - data_start) % file.alignment(),
                0
            );
            let matrix = Matrix::new(format, tensor.rows(), tensor.cols(), tensor.data()).unwrap();
            if tensor.cols() <= MAX_COLS {
                let mut out = vec![0.0; tensor.cols()];
                matrix.dequantize_row(tensor.rows() - 1, &mut out);
            }
        } else {
            assert!(tensor.data().is_empty() && elements > 0);
        }
        if i < LOOKUPS {
            assert!(file.tensor(tensor.name()).is_some());
            assert!(
                file.layer_tensor(i, "w")
                    .is_none_or(|t| t.name().ends_with(".w"))
            );
        }
    }
}
