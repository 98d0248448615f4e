//! `brooklet ppl`: how well a text is predicted, under any policy.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use brooklet_core::stream::Stream;
use brooklet_core::tokenizer::EncodeOptions;
use clap::Args;
use serde::Serialize;

use super::cache::{CacheArguments, PolicyName};
use super::model::ModelArguments;
use super::progress::Counter;
use super::tokenize::bos;
use super::{input, write_json};
use crate::Error;
use crate::engine::{Engine, Resources, Weights, tokenize};
use crate::planning::{PolicyKind, Settings};
use crate::size::Size;

/// Tokens whose logits are computed at once.
const ROWS: usize = 16;

/// Tokens that are fed between two looks at the progress.
const PIECE: usize = 256;

/// Arguments of `brooklet ppl`.
///
/// N predictions, of the tokens A+1 to A+N, are scored; the cache is empty before token A. Token 0 is the start-of-sequence token
/// where the model asks for one.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file with the text; - for standard input
    #[arg(short, long, value_name = "TEXT", required_unless_present = "ids")]
    file: Option<PathBuf>,
    /// A file with token ids separated by blanks, instead of a text
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    ids: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArguments,
    /// The first token that is fed
    #[arg(long, value_name = "A", default_value_t = 0)]
    start: usize,
    /// Predictions; all that the text has unless given
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Score every K-th position only, beginning with the first
    #[arg(long, value_name = "K", default_value_t = 1)]
    stride: usize,
    /// Most memory of the arena, for example 64MiB; no limit unless given
    #[arg(long, value_name = "BYTES")]
    ram: Option<Size>,
    /// Do not put the token of the start of a sequence first, even if the model asks for it
    #[arg(long)]
    no_bos: bool,
    /// Write the logits of every scored position: rows of little-endian f32
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Write every score: a line with the position and the nats for each
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Report the mean attention on the first S tokens, by layer and head (with the policies sink and dense)
    #[arg(long)]
    sink_mass: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    tokens: usize,
    nll: f64,
    ppl: f64,
    policy: &'static str,
    sinks: usize,
    window: usize,
    cache_type: &'static str,
    arena_bytes: usize,
    seconds: f64,
    /// Standard error of `nll`.
    nll_error: f64,
    start: usize,
    stride: usize,
    chunk: usize,
    threads: usize,
    isa: &'static str,
    /// By layer and head.
    #[serde(skip_serializing_if = "Option::is_none")]
    sink_mass: Option<Vec<Vec<f64>>>,
}

/// Scores a text.
pub fn ppl(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Error> {
    if arguments.stride == 0 {
        return Err(Error::Usage("--stride must be at least 1".into()));
    }
    let keeps_first = matches!(arguments.cache.policy, PolicyName::Sink | PolicyName::Dense);
    if arguments.sink_mass && !(keeps_first && arguments.stride == 1) {
        return Err(Error::Usage(
            "--sink-mass needs the policy sink or dense, and every position scored".into(),
        ));
    }
    let open = arguments.model.open()?;
    let weights = Weights::read(&open.file)?;
    let tokens = sequence(arguments, &weights)?;
    let mut settings = Settings {
        budget: arguments.ram.map(|size| size.0),
        sampling: false,
        logits_rows: if arguments.stride == 1 { ROWS } else { 1 },
        ..arguments.cache.settings(&open)?
    };
    let dense = settings.policy == PolicyKind::Dense;
    let tokens = excerpt(
        arguments,
        &tokens,
        if dense {
            weights.config().context
        } else {
            usize::MAX
        },
    )?;
    if dense {
        settings.window = Some(tokens.len() - 1);
    }
    let mut resources = Resources::new(&weights, &settings)?;
    let plan = *resources.plan();
    let config = weights.config();
    let mut mass = vec![
        0.0;
        if arguments.sink_mass {
            config.layers * config.heads * plan.capacity()
        } else {
            0
        }
    ];
    let mut engine = Engine::new(&weights, &mut resources)?;
    engine.stream().probe(&mut mass)?;
    let mut scorer = Scorer::new(arguments, tokens)?;
    let start = Instant::now();
    scorer.run(engine.stream(), arguments.stride)?;
    let seconds = start.elapsed().as_secs_f64();
    let mass = engine.stream().take_probe();
    let (nll, nll_error) = scorer.finish()?;
    let options = plan.options();
    let report = Report {
        tokens: scorer.nats.len(),
        nll,
        ppl: nll.exp(),
        policy: options.policy.name(),
        sinks: options.policy.sinks(),
        window: options.policy.window(),
        cache_type: options.cache_type.name(),
        arena_bytes: plan.bytes(),
        seconds,
        nll_error,
        start: arguments.start,
        stride: arguments.stride,
        chunk: options.chunk,
        threads: options.workers,
        isa: crate::pool::detect_isa()?.name(),
        sink_mass: arguments.sink_mass.then(|| {
            let fed = tokens.len() - 1;
            sink_mass(mass, config.heads, plan.capacity(), arguments.cache.sinks, fed)
        }),
    };
    if arguments.json {
        return write_json(out, &report);
    }
    let Report {
        tokens,
        nll,
        ppl,
        policy,
        sinks,
        window,
        cache_type,
        ..
    } = report;
    let arena = Size(report.arena_bytes);
    writeln!(
        out,
        "perplexity {ppl:.4}  ({nll:.5} +- {nll_error:.5} nats over {tokens} predictions)\n\
         {policy}: {sinks} sinks and a window of {window}, cache in {cache_type}, arena {arena}, {seconds:.2} s"
    )
    .map_err(Error::Output)?;
    for (layer, heads) in report.sink_mass.iter().flatten().enumerate() {
        let heads: Vec<String> = heads.iter().map(|mass| format!("{mass:.4}")).collect();
        writeln!(out, "layer {layer:>3}  {}", heads.join("  ")).map_err(Error::Output)?;
    }
    Ok(())
}

/// From the summed attention weights, `layers x heads x slots`, to the mean over `tokens` of what falls on the first `sinks` slots.
fn sink_mass(weights: &[f32], heads: usize, slots: usize, sinks: usize, tokens: usize) -> Vec<Vec<f64>> {
    let head =
        |slots: &[f32]| slots.iter().take(sinks).map(|&weight| weight as f64).sum::<f64>() / tokens as f64;
    weights
        .chunks_exact(heads * slots)
        .map(|layer| layer.chunks_exact(slots).map(head).collect())
        .collect()
}

/// The whole text as ids.
fn sequence(arguments: &Arguments, weights: &Weights<'_>) -> Result<Vec<u32>, Error> {
    if let Some(path) = &arguments.ids {
        return input::ids(path, weights.config().vocab);
    }
    let text = input::text(None, arguments.file.as_ref(), "the text")?;
    tokenize(
        weights,
        &text,
        EncodeOptions {
            bos: bos(arguments.no_bos),
            ..EncodeOptions::default()
        },
    )
}

/// Tokens A to A+N: what is fed, and one more that is only predicted. Unless it is given, N is at most `most`.
fn excerpt<'t>(arguments: &Arguments, tokens: &'t [u32], most: usize) -> Result<&'t [u32], Error> {
    let rest = tokens.get(arguments.start..).unwrap_or(&[]);
    let there = rest.len().saturating_sub(1);
    let count = arguments.count.unwrap_or(there.min(most));
    if count == 0 || count > there {
        return Err(Error::Input(format!(
            "there are {} tokens, which make {there} predictions from token {} on: {count} cannot be scored",
            tokens.len(),
            arguments.start
        )));
    }
    Ok(&rest[..=count])
}

/// Collects scores, and writes what was asked for.
struct Scorer<'t> {
    tokens: &'t [u32],
    nats: Vec<f64>,
    dump: Option<Output>,
    scores: Option<Output>,
}

impl<'t> Scorer<'t> {
    fn new(arguments: &Arguments, tokens: &'t [u32]) -> Result<Self, Error> {
        Ok(Scorer {
            tokens,
            nats: Vec::with_capacity(tokens.len() / arguments.stride + 1),
            dump: arguments.dump.as_deref().map(Output::create).transpose()?,
            scores: arguments.scores.as_deref().map(Output::create).transpose()?,
        })
    }

    /// Feeds all tokens but the last, and scores every `stride`-th.
    fn run(&mut self, stream: &mut Stream<'_>, stride: usize) -> Result<(), Error> {
        let fed = &self.tokens[..self.tokens.len() - 1];
        let counter = Counter::new("scoring", fed.len());
        let mut at = 0;
        while at < fed.len() {
            if stride == 1 {
                let piece = &fed[at..fed.len().min(at + PIECE)];
                let mut result = Ok(());
                stream.feed_each(piece, &mut |index, logits| {
                    if result.is_ok() {
                        result = self.score(at + index, logits);
                    }
                })?;
                result?;
                at += piece.len();
            } else {
                let logits = stream.feed(&fed[at..=at])?;
                self.score(at, logits)?;
                let between = &fed[at + 1..fed.len().min(at + stride)];
                at += stride;
                // What follows the last scored position changes nothing.
                if at < fed.len() {
                    stream.absorb(between)?;
                }
            }
            counter.set(at);
        }
        Ok(())
    }

    /// Scores the prediction of the token after position `at`.
    fn score(&mut self, at: usize, logits: &[f32]) -> Result<(), Error> {
        let nats = negative_log_likelihood(logits, self.tokens[at + 1] as usize);
        self.nats.push(nats);
        if let Some(dump) = &mut self.dump {
            for logit in logits {
                dump.write(&logit.to_le_bytes())?;
            }
        }
        match &mut self.scores {
            Some(scores) => scores.write(format!("{at} {nats:.6}\n").as_bytes()),
            None => Ok(()),
        }
    }

    /// The mean and its standard error.
    fn finish(&mut self) -> Result<(f64, f64), Error> {
        for output in self.dump.iter_mut().chain(&mut self.scores) {
            output.flush()?;
        }
        let n = self.nats.len() as f64;
        let mean = self.nats.iter().sum::<f64>() / n;
        let squares: f64 = self.nats.iter().map(|nats| (nats - mean).powi(2)).sum();
        let error = if n > 1.0 {
            (squares / (n - 1.0) / n).sqrt()
        } else {
            0.0
        };
        Ok((mean, error))
    }
}

/// `-ln softmax(logits)[target]`, in double precision.
fn negative_log_likelihood(logits: &[f32], target: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = logits.iter().map(|&logit| (logit as f64 - largest).exp()).sum();
    largest + sum.ln() - logits[target] as f64
}

/// A file that is written bit by bit.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: &Path) -> Result<Output, Error> {
        let file = File::create(path).map_err(|error| Error::Write {
            path: path.to_path_buf(),
            error,
        })?;
        Ok(Output {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(1 << 16, file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| Error::Write {
            path: self.path.clone(),
            error,
        })
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.flush().map_err(|error| Error::Write {
            path: self.path.clone(),
            error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_log_of_the_softmax() {
        // softmax of [ln 1, ln 2, ln 5] is [1/8, 2/8, 5/8].
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        for (target, probability) in [(0, 0.125f64), (1, 0.25), (2, 0.625)] {
            assert!((negative_log_likelihood(&logits, target) + probability.ln()).abs() < 1e-6);
        }
        assert!(negative_log_likelihood(&[1e30, -1e30], 0).abs() < 1e-9);
    }

    #[test]
    fn mass_is_averaged_by_layer_and_head() {
        let weights = [1.0, 2.0, 9.0, 3.0, 1.0, 9.0, 0.0, 4.0, 9.0, 2.0, 2.0, 9.0];
        assert_eq!(sink_mass(&weights, 2, 3, 2, 4), [[0.75, 1.0], [1.0, 1.0]]);
    }
}
