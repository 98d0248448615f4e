//! llama.cpp as a peer and an oracle: token ids, logits, perplexity, greedy text and timings from a
//! program that this project did not write.
//!
//! The process prints llama.cpp's system line on standard error, because a build without
//! `RUSTFLAGS="-C target-cpu=native"` silently runs baseline code; `bench` refuses such a build.

mod args;
mod bench;
mod chat;
mod memory;
mod peer;
mod predict;
mod quantize;
mod tokenize;

use args::Args;
use std::process::ExitCode;

/// Every failure ends the program with one sentence, so a boxed error is all that is needed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
llama-peer tokenize MODEL FILE... [--bos] [--special]     one line of ids per file
llama-peer detokenize MODEL IDS_FILE                      the text of the ids, raw bytes
llama-peer logits   MODEL IDS_FILE OUT [-n N]             raw f32 logits, little-endian, N rows
llama-peer topk     MODEL IDS_FILE [-n N]                 position, next id, top-1 id, ln p(top-1), ln p(next)
llama-peer ppl      MODEL IDS_FILE [--start A] [--count N] [--sinks S] [--window W]
llama-peer generate MODEL IDS_FILE -n N                   one line per token: id, top-1 minus top-2 logit
llama-peer quantize IN OUT FORMAT (F16, Q8_0, Q4_K_M ...)  as llama-quantize --allow-requantize does
llama-peer chat     MODEL SYSTEM QUESTIONS OUT [-n 64] [-c 512]      greedy, with context shift
llama-peer bench    MODEL [-p 256] [-n 64] [-r 5] [--serve]
tokenize and detokenize: [--pre NAME] uses another pre-tokenizer than the file's
everywhere: [-t THREADS] [-c CONTEXT] [--cache-type f16|f32|q8_0] [--flash auto|on|off] [--verbose]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("llama-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut raw = std::env::args().skip(1);
    let command = raw.next().ok_or(USAGE)?;
    let args = Args::parse(raw)?;
    match command.as_str() {
        "tokenize" => tokenize::encode(&args),
        "detokenize" => tokenize::decode(&args),
        "logits" => predict::logits(&args),
        "topk" => predict::topk(&args),
        "ppl" => predict::ppl(&args),
        "generate" => predict::generate(&args),
        "quantize" => quantize::quantize(&args),
        "bench" => bench::bench(&args),
        "chat" => chat::chat(&args),
        _ => Err(USAGE.into()),
    }
}
