//! The families, one small file for each, with the facts that set each apart.
//!
//! A family is a [`Design`], which is the same for all its models, and the facts that only its
//! files have. `crate::forward` computes every design, once for all families: a new family that
//! needs no new layer is one more file here, and one more line in [`Family::ALL`].

mod gemma2;
mod gemma3;
mod gpt2;
mod gptneox;
mod llama;
mod moonshine;
mod mpt;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;
mod speech;
mod whisper;

pub(super) use moonshine::config as moonshine;
pub(super) use whisper::config as whisper;

use super::facts::Facts;
use super::{Config, Design, ModelError};
use crate::const_fn::same;

/// A model family, which fixes the structure of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Family {
    /// Llama 1 to 3, SmolLM2, TinyLlama and all other files whose architecture is `llama`.
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, its text part.
    Gemma3,
    /// GPT-NeoX and Pythia.
    GptNeox,
    /// Phi-3, Phi-3.5 and Phi-4-mini.
    Phi3,
    /// OLMo 2.
    Olmo2,
    /// SmolLM3.
    SmolLm3,
    /// GPT-2.
    Gpt2,
    /// MPT.
    Mpt,
    /// Whisper.
    Whisper,
    /// Moonshine.
    Moonshine,
}

impl Family {
    /// Every family, in the order of the documentation's tables.
    pub const ALL: [Family; 13] = [
        Family::Llama,
        Family::Qwen2,
        Family::Qwen3,
        Family::Gemma2,
        Family::Gemma3,
        Family::GptNeox,
        Family::Phi3,
        Family::Olmo2,
        Family::SmolLm3,
        Family::Gpt2,
        Family::Mpt,
        Family::Whisper,
        Family::Moonshine,
    ];

    /// Name of the family in a file's `general.architecture`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3",
            Family::GptNeox => "gptneox",
            Family::Phi3 => "phi3",
            Family::Olmo2 => "olmo2",
            Family::SmolLm3 => "smollm3",
            Family::Gpt2 => "gpt2",
            Family::Mpt => "mpt",
            Family::Whisper => "whisper",
            Family::Moonshine => "moonshine",
        }
    }

    /// Returns the family with this name.
    pub const fn named(name: &str) -> Option<Family> {
        let mut i = 0;
        while i < Family::ALL.len() {
            if same(name.as_bytes(), Family::ALL[i].name().as_bytes()) {
                return Some(Family::ALL[i]);
            }
            i += 1;
        }
        None
    }

    /// Structure of the family's layers.
    pub const fn design(self) -> Design {
        match self {
            Family::Llama => llama::DESIGN,
            Family::Qwen2 => qwen2::DESIGN,
            Family::Qwen3 => qwen3::DESIGN,
            Family::Gemma2 => gemma2::DESIGN,
            Family::Gemma3 => gemma3::DESIGN,
            Family::GptNeox => gptneox::DESIGN,
            Family::Phi3 => phi3::DESIGN,
            Family::Olmo2 => olmo2::DESIGN,
            Family::SmolLm3 => smollm3::DESIGN,
            Family::Gpt2 => gpt2::DESIGN,
            Family::Mpt => mpt::DESIGN,
            Family::Whisper => whisper::DESIGN,
            Family::Moonshine => moonshine::DESIGN,
        }
    }

    /// Adds to `config` the facts that only this family's files have.
    pub(super) const fn complete(
        self,
        facts: &Facts<'_>,
        config: Config,
    ) -> Result<Config, ModelError> {
        match self {
            Family::Gemma2 => gemma2::complete(facts, config),
            Family::Gemma3 => gemma3::complete(facts, config),
            Family::GptNeox => gptneox::complete(facts, config),
            Family::Phi3 => phi3::complete(facts, config),
            Family::Mpt => mpt::complete(facts, config),
            Family::SmolLm3 => Ok(smollm3::complete(config)),
            Family::Llama
            | Family::Qwen2
            | Family::Qwen3
            | Family::Olmo2
            | Family::Gpt2
            | Family::Whisper
            | Family::Moonshine => Ok(config),
        }
    }
}
