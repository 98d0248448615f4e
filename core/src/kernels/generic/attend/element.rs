//! Types of the elements that a cache keeps.

use core::fmt;
use core::str::FromStr;

use crate::quant::BLOCK;

/// Type of the elements of a plane of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ElementType {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element; the default.
    F16,
    /// 8-bit integers with an f16 scale per 32: 1.0625 bytes an element.
    Q8_0,
}

impl ElementType {
    /// Every type.
    pub const ALL: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Q8_0];

    /// `f32`, `f16` or `q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "f32",
            ElementType::F16 => "f16",
            ElementType::Q8_0 => "q8_0",
        }
    }

    /// Returns true if this build has the type. F32 and F16 need the features `cache-f32` and
    /// `cache-f16`, which firmware leaves out to save flash.
    pub const fn is_built(self) -> bool {
        match self {
            ElementType::F32 => cfg!(feature = "cache-f32"),
            ElementType::F16 => cfg!(feature = "cache-f16"),
            ElementType::Q8_0 => true,
        }
    }

    /// Bytes of one element, without scales.
    pub const fn element_bytes(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::F16 => 2,
            ElementType::Q8_0 => 1,
        }
    }

    /// Type of the rank-correction channels beside keys of this type: at least f16, since their
    /// error goes into the values unreduced.
    pub const fn of_channels(self) -> ElementType {
        match self {
            ElementType::F32 => ElementType::F32,
            ElementType::F16 | ElementType::Q8_0 => ElementType::F16,
        }
    }

    /// Scales (two bytes each) of a row of `columns` elements.
    pub const fn row_scales(self, columns: usize) -> usize {
        match self {
            ElementType::Q8_0 => columns.div_ceil(BLOCK),
            _ => 0,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no [`ElementType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnknownElementType;

impl fmt::Display for UnknownElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("element types of a cache are f32, f16 and q8_0")
    }
}

impl core::error::Error for UnknownElementType {}

impl FromStr for ElementType {
    type Err = UnknownElementType;

    fn from_str(name: &str) -> Result<Self, UnknownElementType> {
        let is_named = |of: &ElementType| of.name() == name;
        ElementType::ALL
            .into_iter()
            .find(is_named)
            .ok_or(UnknownElementType)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_type_and_its_name_name_each_other() {
        for element in ElementType::ALL {
            assert_eq!(element.to_string().parse(), Ok(element));
        }
        assert_eq!("F16".parse::<ElementType>(), Err(UnknownElementType));
    }
}
