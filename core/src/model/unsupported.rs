//! Metadata that would change the results of a model, and that no family or not the model's own
//! computes: it is refused, not ignored. `core/docs/families.md` lists all keys.

use super::facts::Facts;
use super::{Family, ModelError};
use crate::const_fn::same;
use crate::gguf::Value;

/// Value of a key that changes nothing.
#[derive(Clone, Copy)]
enum Neutral {
    /// Zero, or the empty list.
    Zero,
    /// Zero or one: a factor, where llama.cpp takes zero for none.
    ZeroOrOne,
    /// False.
    False,
    /// True.
    True,
}

/// A key without its architecture, its neutral value, and the families that compute with others.
type Key = (&'static str, Neutral, &'static [Family]);

/// Index of the key that has a sentence of its own.
const EXPERTS: usize = 0;

const KEYS: [Key; 25] = [
    ("expert_count", Neutral::Zero, &[]),
    ("nextn_predict_layers", Neutral::Zero, &[]),
    ("logit_scale", Neutral::ZeroOrOne, &[]),
    ("residual_scale", Neutral::ZeroOrOne, &[]),
    ("embedding_scale", Neutral::ZeroOrOne, &[]),
    ("attn_logit_softcapping", Neutral::Zero, &[Family::Gemma2]),
    (
        "final_logit_softcapping",
        Neutral::Zero,
        &[Family::Gemma2, Family::Gemma3],
    ),
    ("use_parallel_residual", Neutral::False, &[Family::GptNeox]),
    ("full_attention_interval", Neutral::ZeroOrOne, &[]),
    ("embedding_length_per_layer_input", Neutral::Zero, &[]),
    ("swiglu_clamp_exp", Neutral::Zero, &[]),
    ("swiglu_clamp_shexp", Neutral::Zero, &[]),
    ("attention.causal", Neutral::True, &[]),
    ("attention.scale", Neutral::Zero, &[]),
    ("attention.output_scale", Neutral::ZeroOrOne, &[]),
    ("attention.temperature_scale", Neutral::Zero, &[]),
    ("attention.temperature_length", Neutral::Zero, &[]),
    ("attention.clamp_kqv", Neutral::Zero, &[Family::Mpt]),
    ("attention.max_alibi_bias", Neutral::Zero, &[Family::Mpt]),
    ("attention.shared_kv_layers", Neutral::Zero, &[]),
    ("attention.kv_lora_rank", Neutral::Zero, &[]),
    ("attention.q_lora_rank", Neutral::Zero, &[]),
    ("rope.dimension_sections", Neutral::Zero, &[]),
    ("rope.scaling.alpha", Neutral::ZeroOrOne, &[]),
    ("rope.scaling.yarn_log_multiplier", Neutral::Zero, &[]),
];

impl Neutral {
    const fn is(self, value: &Value<'_>) -> bool {
        let number = match *value {
            Value::Bool(value) => {
                return match self {
                    Neutral::Zero | Neutral::ZeroOrOne | Neutral::False => !value,
                    Neutral::True => value,
                };
            }
            Value::Array(array) => {
                let mut elements = array.elements();
                while let Some(element) = elements.next_value() {
                    if !self.is(&element) {
                        return false;
                    }
                }
                return true;
            }
            Value::Str(_) => return false,
            number => match number.as_f32() {
                Some(number) => number,
                None => match number.as_u64() {
                    Some(0) => 0.0,
                    Some(1) => 1.0,
                    // Neither of the two, whichever number it is.
                    _ => f32::NAN,
                },
            },
        };
        match self {
            Neutral::Zero => number == 0.0,
            Neutral::ZeroOrOne => number == 0.0 || number == 1.0,
            Neutral::False | Neutral::True => false,
        }
    }
}

impl Facts<'_> {
    /// Returns an error for metadata of the file that ask for what `family` does not compute. Reads
    /// the metadata once.
    pub(super) const fn refuse_unsupported(&self, family: Family) -> Result<(), ModelError> {
        let mut entries = self.file.metadata();
        while let Some((name, value)) = entries.next_entry() {
            if let Some(key) = suffix(name, self.architecture)
                && let Some(index) = position(key)
            {
                let (key, neutral, families) = KEYS[index];
                if !contains(families, family) && !neutral.is(&value) {
                    return Err(if index == EXPERTS {
                        ModelError::UnsupportedFeature("a mixture of experts")
                    } else {
                        ModelError::UnsupportedMetadata(key)
                    });
                }
            }
        }
        Ok(())
    }
}

/// Returns what follows `architecture` and a dot in `name`.
const fn suffix<'n>(name: &'n str, architecture: &str) -> Option<&'n [u8]> {
    let (name, start) = (name.as_bytes(), architecture.len());
    if name.len() <= start || name[start] != b'.' {
        return None;
    }
    let (before, rest) = name.split_at(start);
    if !same(before, architecture.as_bytes()) {
        return None;
    }
    Some(rest.split_at(1).1)
}

const fn position(key: &[u8]) -> Option<usize> {
    let mut i = 0;
    while i < KEYS.len() {
        if same(KEYS[i].0.as_bytes(), key) {
            return Some(i);
        }
        i += 1;
    }
    None
}

const fn contains(families: &[Family], family: Family) -> bool {
    let mut i = 0;
    while i < families.len() {
        if families[i] as usize == family as usize {
            return true;
        }
        i += 1;
    }
    false
}
