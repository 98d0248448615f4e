//! The host's run of a board's model: where expected outputs come from.

use std::fs;
use std::path::Path;

use brooklet_core::arena::ALIGN;
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model};
use brooklet_core::plan::{CacheType, Options, Plan};
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
        Reference::run_with(model, |_| {})
    }

    /// As [`Reference::run`], with f32 activations and an f32 cache: free of the rounding that other programs do not have.
    ///
    /// # Errors
    /// As [`Reference::run`].
    pub fn run_in_f32(model: &Path) -> Result<Reference, Error> {
        Reference::run_with(model, |options| {
            options.f32_activations = true;
            options.cache_type = CacheType::F32;
        })
    }

    fn run_with(model: &Path, change: impl FnOnce(&mut Options)) -> Result<Reference, Error> {
        let bytes = fs::read(model)?;
        let file = Gguf::parse(&bytes)?;
        let config = Config::from_gguf(&file)?;
        let layers: Vec<Layer<'_>> = (0..config.layers)
            .map(|layer| Layer::read(&file, &config, layer))
            .collect::<Result<_, _>>()?;
        let model = Model::new(&file, &layers)?;
        let vocab = Vocab::from_gguf(&file)?;
        let mut options = brooklet_demo::options(&vocab);
        change(&mut options);
        let plan = Plan::new(&config, &options)?;
        let mut memory = vec![0; plan.bytes() + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        let arena = &mut memory[start..][..plan.bytes()];
        let transcript = brooklet_demo::run(model, &vocab, &plan, arena, Isa::Scalar)?;
        Ok(Reference { plan, transcript })
    }

    /// Compares all ids with those that `model/reference.py` wrote to `path`.
    ///
    /// # Errors
    /// If the file cannot be read or says something else.
    pub fn check_ids(&self, path: &Path) -> Result<(), Error> {
        let Transcript { prompt, ids, .. } = &self.transcript;
        let ours = format!("{}\n{}\n", blanks_between(prompt), blanks_between(ids));
        let theirs = fs::read_to_string(path)?;
        if ours != theirs {
            return Err(format!(
                "the host and {} differ\nhost:\n{ours}\nthere:\n{theirs}",
                path.display()
            )
            .into());
        }
        Ok(())
    }
}

fn blanks_between(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}
