//! Reasons why there is no plan.

use core::fmt;

use crate::arena::MAX_PARTS;
use crate::cache::{ElementType, LayoutChoice};
use crate::const_fn::Message;

/// Reason why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PlanError {
    /// The plan takes more bytes than the budget has.
    OverBudget {
        /// Bytes that the plan takes.
        needed: usize,
        /// Bytes of the budget.
        given: usize,
    },
    /// Sinks and window together are larger than the trained context.
    BeyondContext {
        /// Sinks plus window.
        asked: usize,
        /// Positions that the model was trained for.
        trained: usize,
    },
    /// The cache's element type, or that of a slim layer's channels, is left out of this build.
    NotBuilt(ElementType),
    /// Only the policies dense and recompute can run a model with learned positions.
    LearnedPositions {
        /// Positions that the model was trained for.
        trained: usize,
    },
    /// Keys and values cannot be cached: some slim layers have no value projection.
    NoValues,
    /// Caches of inputs are left out of this build.
    NoInputs,
    /// Inputs cannot be cached: something comes between a key's projection and a score.
    Inputs {
        /// True if keys are rotated (RoPE).
        rotated: bool,
    },
    /// Some layers of the file are not made for the layout.
    NotMadeFor {
        /// The layout.
        layout: LayoutChoice,
        /// Number of such layers.
        others: usize,
        /// Number of all layers.
        layers: usize,
    },
    /// A number that must be at least 1 is zero; the field is its name.
    Zero(&'static str),
    /// There are more workers than parts into which work can be divided.
    Workers {
        /// Workers asked for.
        asked: usize,
    },
    /// The sizes overflow the address space.
    Overflow,
}

impl PlanError {
    /// Returns the whole sentence, in `const`, for a board's compile error.
    pub const fn message(&self) -> Message<160> {
        match *self {
            PlanError::OverBudget { needed, given } => budget_message(needed, given),
            PlanError::BeyondContext { asked, trained } => Message::new()
                .text("sinks and window hold ")
                .number(asked)
                .text(" tokens together, but the model was trained for ")
                .number(trained),
            PlanError::NotBuilt(cache_type) => Message::new()
                .text("this build has no cache in ")
                .text(cache_type.name())
                .text(": brooklet-core's feature cache-")
                .text(cache_type.name())
                .text(" adds it"),
            PlanError::LearnedPositions { trained } => Message::new()
                .text("the model's ")
                .number(trained)
                .text(" learned positions cannot move in a cache: use the policy dense or recompute, not sink or window"),
            PlanError::NoValues => Message::new().text(
                "keys and values cannot be cached: the file lacks attn_v.weight in layers whose values are computed from keys",
            ),
            PlanError::NoInputs => Message::new().text(
                "this build has no cache of layer inputs: brooklet-core's feature families brings it",
            ),
            PlanError::Inputs { rotated: true } => Message::new().text(
                "a cache of layer inputs is for models that do not rotate keys: this one does (RoPE)",
            ),
            PlanError::Inputs { rotated: false } => Message::new().text(
                "a cache of layer inputs cannot be used with key norms, score caps, score biases (ALiBi) or local windows",
            ),
            PlanError::NotMadeFor {
                layout,
                others,
                layers,
            } => Message::new()
                .number(others)
                .text(" of the model's ")
                .number(layers)
                .text(" layers are not made for a cache in layout ")
                .text(layout.name()),
            PlanError::Zero(what) => Message::new()
                .text("the ")
                .text(what)
                .text(" is 0; it must be at least 1"),
            PlanError::Workers { asked } => Message::new()
                .number(asked)
                .text(" workers are too many: the largest number is ")
                .number(MAX_PARTS),
            PlanError::Overflow => {
                Message::new().text("the requested sizes overflow this machine's address space")
            }
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message().as_str())
    }
}

impl core::error::Error for PlanError {}

/// Builds the message that a plan of `needed` bytes does not fit a budget of `given`, with the
/// number of missing bytes.
const fn budget_message(needed: usize, given: usize) -> Message<160> {
    let missing = needed.saturating_sub(given);
    Message::new()
        .text("the plan needs ")
        .number(needed)
        .text(" bytes, the budget is ")
        .number(given)
        .text(" bytes: ")
        .number(missing)
        .text(if missing == 1 {
            " byte is missing"
        } else {
            " bytes are missing"
        })
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn a_budget_message_names_all_three_numbers() {
        const MESSAGE: Message<160> = budget_message(70_000, 65_536);
        assert_eq!(
            MESSAGE.as_str(),
            "the plan needs 70000 bytes, the budget is 65536 bytes: 4464 bytes are missing"
        );
        let longest = budget_message(usize::MAX, 0);
        assert!(
            longest
                .as_str()
                .ends_with(&format!("{} bytes are missing", usize::MAX))
        );
    }
}
