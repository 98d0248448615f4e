//! A stream over a model file, for tests with one thread on the instruction set that they are
//! compiled for.

use brooklet_core::arena::ALIGN;
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model};
use brooklet_core::plan::{Options, Plan};
use brooklet_core::stream::Stream;
use brooklet_core::threads::SingleThread;

/// Runs `work` on a stream over `file`, laid out by `options`.
pub fn with_stream<R>(
    file: &[u8],
    options: &Options,
    work: impl FnOnce(&mut Stream<'_>) -> R,
) -> R {
    let file = Gguf::parse(file).unwrap();
    let config = Config::from_gguf(&file).unwrap();
    let layers: Vec<Layer<'_>> = (0..config.layers_in_file())
        .map(|layer| Layer::read(&file, &config, layer).unwrap())
        .collect();
    let model = Model::new(&file, &layers).unwrap();
    let plan = Plan::new(&config, options).unwrap();
    let mut memory = vec![0; plan.bytes() + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let arena = &mut memory[start..][..plan.bytes()];
    work(&mut Stream::new(model, &plan, arena, Isa::of_target(), &SingleThread).unwrap())
}
