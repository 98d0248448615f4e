//! The host's run of a board's model: where expected outputs come from.

use std::fs;
use std::path::Path;

use brooklet_core::arena::ALIGN;
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model};
use brooklet_core::plan::Plan;
use brooklet_core::tokenizer::Vocab;
use brooklet_demo::Transcript;

use crate::Error;

/// What a board must do with a model.
pub struct Reference {
    /// What the board plans.
    pub plan: Plan,
    /// What it says.
    pub transcript: Transcript,
}

impl Reference {
    /// Plans and runs `model` on this machine, with the scalar kernels.
    ///
    /// # Errors
    /// If the file cannot be read or is no model of a known family.
    pub fn run(model: &Path) -> Result<Reference, Error> {
        let bytes = fs::read(model)?;
        let file = Gguf::parse(&bytes)?;
        let config = Config::from_gguf(&file)?;
        let layers: Vec<Layer<'_>> = (0..config.layers)
            .map(|layer| Layer::read(&file, &config, layer))
            .collect::<Result<_, _>>()?;
        let model = Model::new(&file, &layers)?;
        let vocab = Vocab::from_gguf(&file)?;
        let plan = Plan::new(&config, &brooklet_demo::options(&vocab))?;
        let mut memory = vec![0; plan.bytes() + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        let arena = &mut memory[start..][..plan.bytes()];
        let transcript = brooklet_demo::run(model, &vocab, &plan, arena, Isa::Scalar)?;
        Ok(Reference { plan, transcript })
    }
}
