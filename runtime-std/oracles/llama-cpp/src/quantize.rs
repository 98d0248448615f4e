//! `quantize` writes the same files as llama.cpp's own `llama-quantize` without an importance
//! matrix.
//!
//! To get exactly the bits of ggml's source, build with
//! `CFLAGS=-ffp-contract=off CXXFLAGS=-ffp-contract=off`. Otherwise the compiler may fuse
//! multiplications and additions.

use crate::Result;
use crate::args::Args;
use crate::peer::threads;
use llama_cpp_2::llama_backend::LlamaBackend;
use std::ffi::CString;

/// Writes the second word's file from the first one's, in the format of the third.
pub fn quantize(args: &Args) -> Result<()> {
    let (input, output) = (args.word(0, "IN")?, args.word(1, "OUT")?);
    let ftype = match args.word(2, "FTYPE")? {
        "F16" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_F16,
        "Q8_0" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q8_0,
        "Q5_0" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q5_0,
        "Q5_1" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q5_1,
        "Q4_1" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q4_1,
        "Q4_0" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q4_0,
        "Q2_K" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q2_K,
        "Q3_K_S" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q3_K_S,
        "Q3_K_M" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q3_K_M,
        "Q3_K_L" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q3_K_L,
        "Q4_K_S" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q4_K_S,
        "Q4_K_M" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        "Q5_K_S" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q5_K_S,
        "Q5_K_M" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q5_K_M,
        "Q6_K" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q6_K,
        "IQ4_NL" => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_IQ4_NL,
        other => return Err(format!("{other}: no format that llama-quantize and brooklet share").into()),
    };
    let mut backend = LlamaBackend::init()?;
    if !args.has("--verbose") {
        backend.void_logs();
    }
    let (from, to) = (CString::new(input)?, CString::new(output)?);
    // SAFETY: the function takes nothing and returns a plain structure.
    let mut params = unsafe { llama_cpp_sys_2::llama_model_quantize_default_params() };
    params.nthread = threads(args)?;
    params.ftype = ftype;
    params.allow_requantize = true;
    // SAFETY: both names are NUL-terminated and `params` is whole, its pointers null as the
    // defaults have them; all three outlive the call, which keeps none of them. The backend is
    // initialised.
    let code = unsafe { llama_cpp_sys_2::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params) };
    if code != 0 {
        return Err(format!("{input}: llama.cpp cannot quantize it; --verbose says why").into());
    }
    Ok(())
}
