//! The formats of a whole file: a format for most of its tensors, and a mix of others for some.

use std::str::FromStr;

use brooklet_core::quant::Format;

/// A format, or a mix of formats, that whole files are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    non_camel_case_types,
    reason = "the names that everybody uses for these files"
)]
pub enum Target {
    /// 16-bit floats.
    F16,
    /// 8 bits.
    Q8_0,
    /// 6 bits in super-blocks.
    Q6_K,
    /// Q5_K, some tensors Q6_K.
    Q5_K_M,
    /// Q5_K.
    Q5_K_S,
    /// 5 bits with minima.
    Q5_1,
    /// 5 bits.
    Q5_0,
    /// Q4_K, some tensors Q6_K.
    Q4_K_M,
    /// Q4_K, some tensors of the first layers Q5_K.
    Q4_K_S,
    /// 4 bits of uneven steps.
    IQ4_NL,
    /// 4 bits with minima.
    Q4_1,
    /// 4 bits.
    Q4_0,
    /// Q3_K, some tensors Q5_K.
    Q3_K_L,
    /// Q3_K, some tensors Q4_K and Q5_K.
    Q3_K_M,
    /// Q3_K.
    Q3_K_S,
    /// Q2_K, some tensors Q3_K and Q4_K.
    Q2_K,
}

impl Target {
    /// Every target, from the largest file to the smallest.
    pub const ALL: [Target; 16] = [
        Target::F16,
        Target::Q8_0,
        Target::Q6_K,
        Target::Q5_1,
        Target::Q5_K_M,
        Target::Q5_K_S,
        Target::Q5_0,
        Target::Q4_1,
        Target::Q4_K_M,
        Target::Q4_K_S,
        Target::IQ4_NL,
        Target::Q4_0,
        Target::Q3_K_L,
        Target::Q3_K_M,
        Target::Q3_K_S,
        Target::Q2_K,
    ];

    /// The format of most tensors.
    pub const fn format(self) -> Format {
        match self {
            Target::F16 => Format::F16,
            Target::Q8_0 => Format::Q8_0,
            Target::Q6_K => Format::Q6_K,
            Target::Q5_K_M | Target::Q5_K_S => Format::Q5_K,
            Target::Q5_1 => Format::Q5_1,
            Target::Q5_0 => Format::Q5_0,
            Target::Q4_K_M | Target::Q4_K_S => Format::Q4_K,
            Target::IQ4_NL => Format::IQ4_NL,
            Target::Q4_1 => Format::Q4_1,
            Target::Q4_0 => Format::Q4_0,
            Target::Q3_K_L | Target::Q3_K_M | Target::Q3_K_S => Format::Q3_K,
            Target::Q2_K => Format::Q2_K,
        }
    }

    /// The name that the command line takes.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Q5_K_M => "Q5_K_M",
            Target::Q5_K_S => "Q5_K_S",
            Target::Q4_K_M => "Q4_K_M",
            Target::Q4_K_S => "Q4_K_S",
            Target::Q3_K_L => "Q3_K_L",
            Target::Q3_K_M => "Q3_K_M",
            Target::Q3_K_S => "Q3_K_S",
            other => other.format().name(),
        }
    }

    /// The number that `general.file_type` holds: llama.cpp's `enum llama_ftype`.
    pub(super) const fn file_type(self) -> u32 {
        match self {
            Target::F16 => 1,
            Target::Q4_0 => 2,
            Target::Q4_1 => 3,
            Target::Q8_0 => 7,
            Target::Q5_0 => 8,
            Target::Q5_1 => 9,
            Target::Q2_K => 10,
            Target::Q3_K_S => 11,
            Target::Q3_K_M => 12,
            Target::Q3_K_L => 13,
            Target::Q4_K_S => 14,
            Target::Q4_K_M => 15,
            Target::Q5_K_S => 16,
            Target::Q5_K_M => 17,
            Target::Q6_K => 18,
            Target::IQ4_NL => 25,
        }
    }
}

/// No [`Target`] has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a format that can be written; the formats are F16, Q8_0, Q6_K, Q5_1, Q5_K_M, Q5_K_S, Q5_0, Q4_1, Q4_K_M, Q4_K_S, IQ4_NL, Q4_0, \
     Q3_K_L, Q3_K_M, Q3_K_S and Q2_K"
)]
pub struct TargetError;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let same = |target: &Target| target.name().eq_ignore_ascii_case(text);
        Target::ALL.into_iter().find(same).ok_or(TargetError)
    }
}
