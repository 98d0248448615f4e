//! A model and functions to load it and to feed it ids, shared by all subcommands.

use crate::Result;
use crate::args::Args;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::params::kv_overrides::ParamOverrideValue;
use llama_cpp_2::token::LlamaToken;
use std::ffi::{CStr, c_char};
use std::num::NonZeroU32;
use std::pin::pin;

/// A loaded model and the backend it needs.
pub struct Peer {
    backend: LlamaBackend,
    /// The model, weights memory-mapped as llama.cpp does by default.
    pub model: LlamaModel,
}

impl Peer {
    /// Loads the model named by the first word and prints the system line.
    pub fn load(args: &Args) -> Result<Self> {
        Self::load_with(args, false)
    }

    /// Loads the vocabulary only.
    pub fn load_vocab(args: &Args) -> Result<Self> {
        Self::load_with(args, true)
    }

    fn load_with(args: &Args, vocab_only: bool) -> Result<Self> {
        let path = args.word(0, "MODEL")?;
        if !std::path::Path::new(path).is_file() {
            return Err(format!("{path}: no such file").into());
        }
        let mut backend = LlamaBackend::init()?;
        if !args.has("--verbose") {
            backend.void_logs();
        }
        let mut params = pin!(
            LlamaModelParams::default()
                .with_vocab_only(vocab_only)
                .with_use_mmap(!args.has("--no-mmap"))
        );
        if let Some(name) = args.text("--pre") {
            params
                .as_mut()
                .append_kv_override(c"tokenizer.ggml.pre", string_value(name)?);
        }
        let model = LlamaModel::load_from_file(&backend, path, &params)?;
        eprintln!("system_info: {}", system_line());
        Ok(Peer { backend, model })
    }

    /// A context of at least `needed` entries, or of `-c` if given; f16 cache and automatic flash
    /// attention unless told otherwise; logical batches of 2048 and physical ones of 512,
    /// llama.cpp's defaults.
    pub fn context(&self, args: &Args, needed: usize) -> Result<LlamaContext<'_>> {
        let entries = args.value("-c")?.unwrap_or(u32::try_from(needed)?.max(256));
        let threads = threads(args)?;
        let cache = cache_type(args)?;
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(entries))
            .with_n_batch(2048)
            .with_n_ubatch(512)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_type_k(cache)
            .with_type_v(cache)
            .with_flash_attention_policy(flash_policy(args)?);
        Ok(self.model.new_context(&self.backend, params)?)
    }

    /// Number of logits in a row.
    pub fn vocab(&self) -> usize {
        usize::try_from(self.model.n_vocab()).expect("a vocabulary has no negative size")
    }
}

/// A metadata override of string type: at most 127 bytes of ASCII.
fn string_value(text: &str) -> Result<ParamOverrideValue> {
    let mut bytes = [0; 128];
    if text.len() >= bytes.len() || !text.is_ascii() {
        return Err(format!("{text}: too long for an override, or not ASCII").into());
    }
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    Ok(ParamOverrideValue::Str(bytes))
}

/// The number of threads asked for; 2 unless given, as in every comparison of this project.
pub fn threads(args: &Args) -> Result<i32> {
    Ok(args.value("-t")?.unwrap_or(2))
}

fn cache_type(args: &Args) -> Result<KvCacheType> {
    match args.text("--cache-type").unwrap_or("f16") {
        "f16" => Ok(KvCacheType::F16),
        "f32" => Ok(KvCacheType::F32),
        "q8_0" => Ok(KvCacheType::Q8_0),
        other => Err(format!("--cache-type {other}: f16, f32 or q8_0").into()),
    }
}

fn flash_policy(args: &Args) -> Result<llama_cpp_sys_2::llama_flash_attn_type> {
    match args.text("--flash").unwrap_or("auto") {
        "auto" => Ok(llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_AUTO),
        "on" => Ok(llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED),
        "off" => Ok(llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_DISABLED),
        other => Err(format!("--flash {other}: auto, on or off").into()),
    }
}

/// llama.cpp's own description of the instruction sets it was built for.
pub fn system_line() -> String {
    // SAFETY: the function takes nothing and returns a pointer to a NUL-terminated static string,
    // which stays valid until its next call; it is copied before this function returns, and the
    // program calls it from one thread.
    unsafe { CStr::from_ptr(llama_cpp_sys_2::llama_print_system_info()) }
        .to_string_lossy()
        .into_owned()
}

/// Ids from a text file of blank-separated numbers, checked against the vocabulary.
pub fn read_ids(path: &str, vocab: usize) -> Result<Vec<LlamaToken>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let parse = |word: &str| -> Result<LlamaToken> {
        let id: u32 = word
            .parse()
            .map_err(|_| format!("{path}: {word} is not a token id"))?;
        if id as usize >= vocab {
            return Err(format!("{path}: id {id} is outside the vocabulary of {vocab}").into());
        }
        Ok(LlamaToken(i32::try_from(id)?))
    };
    text.split_whitespace().map(parse).collect()
}

/// Feeds `ids` at positions `first..`; computes logits of every token if `all` is true, else only
/// of the last.
pub fn feed(context: &mut LlamaContext, ids: &[LlamaToken], first: usize, all: bool) -> Result<()> {
    let mut batch = LlamaBatch::new(ids.len(), 1);
    for (offset, &id) in ids.iter().enumerate() {
        let last = offset + 1 == ids.len();
        batch.add(id, i32::try_from(first + offset)?, &[0], all || last)?;
    }
    Ok(context.decode(&mut batch)?)
}
