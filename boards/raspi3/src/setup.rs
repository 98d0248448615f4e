//! Setup and opening of the firmware. The host that checks it includes this file, too.

use brooklet_core::cache::{ElementType, LayoutChoice};
use brooklet_firmware::Setup;

/// First prompt, used before a line is typed.
pub const OPENING: &str = "Once upon a time";

/// Greedy; the firmware puts its own temperature in. The model was trained for 256 tokens, with one
/// of its own in front of every text.
pub const SETUP: Setup = Setup {
    sinks: 1,
    window: 255,
    chunk: 32,
    cache_type: ElementType::F16,
    layout: LayoutChoice::Auto,
    temperature: 0.0,
    seed: 1,
};
