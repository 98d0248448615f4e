//! ggml's element types, also those that this crate does not compute with: their names for people,
//! and their sizes, so that the place of every tensor in a file can be checked.

use super::Format;

/// An element type of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgmlType {
    /// The usual name, as in ggml.
    pub name: &'static str,
    /// Elements in a block.
    pub block: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

impl GgmlType {
    /// Returns the type with this number in ggml's `enum ggml_type`.
    pub const fn of(number: u32) -> Option<GgmlType> {
        if let Some(format) = Format::from_ggml_type(number) {
            return Some(GgmlType {
                name: format.name(),
                block: format.block_len(),
                bytes: format.block_bytes(),
            });
        }
        let (name, block, bytes) = match number {
            9 => ("Q8_1", 32, 36),
            15 => ("Q8_K", 256, 292),
            16 => ("IQ2_XXS", 256, 66),
            17 => ("IQ2_XS", 256, 74),
            18 => ("IQ3_XXS", 256, 98),
            19 => ("IQ1_S", 256, 50),
            21 => ("IQ3_S", 256, 110),
            22 => ("IQ2_S", 256, 82),
            23 => ("IQ4_XS", 256, 136),
            24 => ("I8", 1, 1),
            25 => ("I16", 1, 2),
            26 => ("I32", 1, 4),
            27 => ("I64", 1, 8),
            28 => ("F64", 1, 8),
            29 => ("IQ1_M", 256, 56),
            34 => ("TQ1_0", 256, 54),
            35 => ("TQ2_0", 256, 66),
            39 => ("MXFP4", 32, 17),
            40 => ("NVFP4", 64, 36),
            41 => ("Q1_0", 128, 18),
            _ => return None,
        };
        Some(GgmlType { name, block, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_a_type_of_its_size() {
        for format in Format::ALL {
            let found = GgmlType::of(format.ggml_type()).unwrap();
            assert_eq!(found.name, format.name());
            assert_eq!(
                format.row_bytes(found.block).unwrap(),
                found.bytes,
                "{}",
                found.name
            );
        }
        assert_eq!(GgmlType::of(23).unwrap().name, "IQ4_XS");
        // Numbers that ggml has given up, and those to come.
        for number in [4, 5, 31, 36, 1000, u32::MAX] {
            assert_eq!(GgmlType::of(number), None);
        }
    }
}
