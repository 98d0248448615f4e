//! Continues every prompt of a file and appends the texts to a file of JSON lines.
//!
//! ```text
//! cargo run --release --example complete -- MODEL.gguf PROMPTS.jsonl TEXTS.jsonl \
//!     [--tokens 200] [--stop TEXT] [--temp 0.8]
//! ```
//!
//! A line of `PROMPTS.jsonl` is `{"prefix": TEXT, "prompt": TEXT}`; one of `TEXTS.jsonl` is
//! `{"line": N, "text": TEXT, "whole": BOOL}`, `whole` if a stop text or the model ended it. Lines
//! that follow one another with the same prefix share its keys and values: it is fed once and
//! pinned as sinks, and the tokens after it are evicted before the next prompt. An interrupted run
//! continues with the group of lines that it was in. The random sequence of a prompt starts from
//! its number. The same model, prompts and settings therefore give the same texts, with any number
//! of interruptions and threads, and on any processor.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use brooklet::ModelOptions;
use brooklet::Settings;
use brooklet::core::sampler::{Sampler, SamplerOptions};
use brooklet::generate::{Finish, Request, Writing};
use brooklet::system::pool::Pool;
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// A GGUF file
    model: PathBuf,
    /// A JSON object per line, with a `prefix` and a `prompt`
    prompts: PathBuf,
    /// File that texts are appended to
    texts: PathBuf,
    /// Most tokens of a text
    #[arg(long, default_value_t = 200)]
    tokens: u64,
    /// A text to end before; may be given several times
    #[arg(long)]
    stop: Vec<String>,
    /// Temperature of sampling
    #[arg(long, default_value_t = 0.8)]
    temp: f32,
    /// Sampling keeps the fewest tokens with at least this probability together
    #[arg(long, default_value_t = 0.9)]
    top_p: f32,
    /// Divisor of the logits of the last 64 tokens
    #[arg(long, default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Threads; as many as there are processors unless given
    #[arg(short, long)]
    threads: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let workers = arguments.threads.unwrap_or_else(Pool::default_workers);
    let model = ModelOptions::new()
        .workers(workers)
        .open(&arguments.model)?;
    let mut session = model.session(&Settings::new().window(1024))?;
    let request = Request {
        limit: Some(arguments.tokens),
        stops: arguments.stop.clone(),
        ..Request::default()
    };

    let prompts: Vec<Prompt> = BufReader::new(File::open(&arguments.prompts)?)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let (mut texts, done) = resume(&arguments.texts, &prompts)?;
    let mut prefix = None;
    for (line, prompt) in prompts.iter().enumerate().skip(done) {
        let tokens = session.with(|engine| -> Result<_, brooklet::Error> {
            if prefix == Some(&prompt.prefix) {
                engine.stream().evict(usize::MAX)?;
            } else {
                let tokens = engine.encode(prompt.prefix.as_bytes())?;
                engine.stream().reset();
                engine.stream().absorb(&tokens)?;
                engine.stream().pin()?;
            }
            engine.encode(prompt.prompt.as_bytes())
        })?;
        prefix = Some(&prompt.prefix);
        let mut sampler = Sampler::new(SamplerOptions {
            temperature: arguments.temp,
            top_p: arguments.top_p,
            repeat_penalty: arguments.repeat_penalty,
            seed: line as u64,
            ..SamplerOptions::default()
        });
        let mut text = String::new();
        let mut sink = |piece: &str| {
            text.push_str(piece);
            Ok(())
        };
        let report = session.with(|engine| {
            let (feed, tokenizer) = engine.parts()?;
            let writing = Writing {
                feed,
                tokenizer,
                sampler: &mut sampler,
                request: &request,
            };
            writing.run(&tokens, &mut sink)
        })?;
        let whole = matches!(report.finish, Finish::End | Finish::Stop);
        let object = serde_json::json!({ "line": line, "text": text, "whole": whole });
        writeln!(texts, "{object}")?;
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Prompt {
    prefix: String,
    prompt: String,
}

/// Opens the file to append to, and cuts it off at the first prompt whose group is incomplete;
/// returns the file and that prompt's index.
fn resume(path: &Path, prompts: &[Prompt]) -> Result<(File, usize), Box<dyn Error>> {
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    let mut ends = vec![0];
    let mut reader = BufReader::new(&file);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        ends.push(ends[ends.len() - 1] + line.len() as u64);
        line.clear();
    }
    let mut done = (ends.len() - 1).min(prompts.len());
    while done > 0 && done < prompts.len() && prompts[done].prefix == prompts[done - 1].prefix {
        done -= 1;
    }
    file.set_len(ends[done])?;
    Ok((file, done))
}
