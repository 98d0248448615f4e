//! `brooklet ppl`: the perplexity of a text, under any policy.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use brooklet_core::cache::Policy;
use brooklet_core::model::Config;
use brooklet_core::plan::Plan;
use brooklet_core::stream::Stream;
use brooklet_core::tokenizer::EncodeOptions;
use clap::{ArgGroup, Args};
use serde::Serialize;

use super::cache::{CacheArguments, RamArguments};
use super::failure::Failure;
use super::input;
use super::json::{Noted, Said, write_json};
use super::model::ModelArguments;
use super::numbers::{MOST_TOKENS, whole};
use super::output::{Files, Output};
use super::progress::Counter;
use super::prompt::SpecialArguments;
use super::run::{Kept, planned};
use super::tokenize::bos;
use crate::engine::{Engine, Resources};
use crate::model::Model;
use crate::notice::{Notice, Notices};
use crate::planning::Settings;
use crate::score::negative_log_likelihood;
use crate::size::Size;
use brooklet_core::cache::PolicyKind;

/// Tokens whose logits are computed at once.
const ROWS: usize = 16;

/// Tokens that are fed between two looks at the progress.
const PIECE: usize = 256;

/// Arguments of `brooklet ppl`.
///
/// N predictions, of the tokens A+1 to A+N, are scored; the cache is empty before token A. Token 0
/// is the start-of-sequence token where the model asks for one.
#[derive(Args)]
#[command(group = ArgGroup::new("outputs").args(["dump", "scores", "attention"]).multiple(true))]
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
    special: SpecialArguments,
    #[command(flatten)]
    cache: CacheArguments,
    /// The first token that is fed
    #[arg(long, value_name = "A", default_value_t = 0, value_parser = whole(0, MOST_TOKENS))]
    start: usize,
    /// Number of predictions; all of the text unless given
    #[arg(long, value_name = "N", value_parser = whole(1, MOST_TOKENS))]
    count: Option<usize>,
    /// Score every K-th position only, beginning with the first
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = whole(1, MOST_TOKENS))]
    stride: usize,
    #[command(flatten)]
    ram: RamArguments,
    /// Do not put the token of the start of a sequence first, even if the model asks for it
    #[arg(long, conflicts_with = "ids")]
    no_bos: bool,
    /// Write the logits of every scored position: rows of little-endian f32
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Write every score: a line with the position and the nats for each
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Report the mean attention on the first S tokens, by layer and head (with the policies sink
    /// and dense)
    #[arg(long)]
    sink_mass: bool,
    /// Write the mean attention by layer, head and cache slot: lines of layer, head, slot and
    /// weight
    #[arg(long, value_name = "FILE")]
    attention: Option<PathBuf>,
    /// Replace the files to write if they exist
    #[arg(long, requires = "outputs")]
    force: bool,
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
    /// Mean attention on the first S tokens: of each head, of each layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    sink_mass: Option<Vec<Vec<f32>>>,
}

/// Scores a text.
pub fn ppl(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let open = arguments.model.open()?;
    let mut files = Files::new(arguments.force)
        .reads_model(&open.file)
        .may_read(arguments.file.as_ref())
        .may_read(arguments.ids.as_ref());
    let (model, manifest) = open.check_text(arguments.cache.compute.workers())?;
    let model = arguments.cache.compute.tuned(model, &mut notices)?;
    let tokens = sequence(arguments, &model)?;
    let mut settings = Settings {
        budget: arguments.ram.budget(),
        sampling: false,
        logits_rows: if arguments.stride == 1 { ROWS } else { 1 },
        ..arguments.cache.settings(&model, manifest.as_ref())?
    };
    let dense = settings.policy == PolicyKind::Dense;
    // A dense cache holds no more than the model was trained for, or than --window says.
    let most = match settings.window {
        _ if !dense => usize::MAX,
        Some(window) => window,
        None => model.config().context,
    };
    let excerpt = Excerpt::of(arguments, &tokens, most)?;
    if excerpt.count() < excerpt.there && arguments.count.is_none() {
        notices.add(Notice::TextCut {
            what: "predictions",
            there: excerpt.there,
            used: excerpt.count(),
            reason: "a dense cache holds no more (--window, and what the model was trained for)",
        });
    }
    let tokens = excerpt.tokens;
    if dense {
        settings.window = Some(excerpt.count());
    }
    let plan = planned(&model, &settings, &mut notices)?;
    let mut resources = Resources::as_planned(&model, &plan)?;
    let mut attention = Attention::new(arguments, model.config(), &plan)?;
    let mut engine = Engine::new(&model, &mut resources)?;
    engine.stream().probe(&mut attention.weights)?;
    let mut scorer = Scorer::new(arguments, tokens, &mut files)?;
    let attention_file = files.may_create(arguments.attention.as_ref())?;
    let start = Instant::now();
    scorer.run(engine.stream(), arguments.stride)?;
    let seconds = start.elapsed().as_secs_f64();
    attention.finish(tokens.len() - 1);
    if let Some(file) = attention_file {
        attention.write(file)?;
    }
    let (nll, nll_error) = scorer.mean();
    let scored = scorer.finish()?;
    let options = plan.options();
    let report = Report {
        tokens: scored,
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
        isa: crate::system::isa::detect_isa()?.name(),
        sink_mass: arguments
            .sink_mass
            .then(|| attention.on_first(settings.sinks)),
    };
    if arguments.json {
        return write_json(
            out,
            &Noted {
                report,
                notices: Said(&notices),
            },
        );
    }
    let Report {
        tokens,
        nll,
        ppl,
        policy,
        sinks,
        window,
        cache_type,
        ref sink_mass,
        ..
    } = report;
    let arena = Size(report.arena_bytes);
    writeln!(
        out,
        "perplexity {ppl:.4}  ({nll:.5} +- {nll_error:.5} nats over {})\n\
         {policy}: {}, cache in {cache_type}, arena {arena}, {seconds:.2} s",
        counted(tokens, "prediction"),
        Kept {
            policy,
            sinks,
            window
        }
    )
    .map_err(Failure::Output)?;
    for (layer, heads) in sink_mass.iter().flatten().enumerate() {
        let shares: Vec<String> = heads
            .iter()
            .map(|share| format!("{:4.1}", 100.0 * share))
            .collect();
        writeln!(
            out,
            "layer {layer:3}, % on the first {}: {}",
            settings.sinks,
            shares.join(" ")
        )
        .map_err(Failure::Output)?;
    }
    Ok(())
}

/// Softmax weights added up over all tokens, by layer, head and cache slot; empty if not asked for.
struct Attention {
    weights: Vec<f32>,
    heads: usize,
    slots: usize,
}

impl Attention {
    fn new(arguments: &Arguments, config: &Config, plan: &Plan) -> Result<Self, Failure> {
        let (heads, slots) = (config.heads, plan.capacity());
        if !arguments.sink_mass && arguments.attention.is_none() {
            return Ok(Attention {
                weights: Vec::new(),
                heads,
                slots,
            });
        }
        if arguments.stride != 1 || matches!(plan.options().policy, Policy::Recompute { .. }) {
            return Err(Failure::Usage(
                "attention is averaged over all tokens: --stride and --policy recompute do not allow that"
                    .into(),
            ));
        }
        if arguments.sink_mass && matches!(plan.options().policy, Policy::Window { .. }) {
            return Err(Failure::Usage(
                "--sink-mass needs first tokens that stay: --policy sink or dense".into(),
            ));
        }
        Ok(Attention {
            weights: vec![0.0; config.layers * heads * slots],
            heads,
            slots,
        })
    }

    /// Turns sums over `tokens` tokens into means.
    fn finish(&mut self, tokens: usize) {
        self.weights
            .iter_mut()
            .for_each(|weight| *weight /= tokens as f32);
    }

    /// Share of the first `sinks` slots, by layer and head.
    fn on_first(&self, sinks: usize) -> Vec<Vec<f32>> {
        let share = |head: &[f32]| head.iter().take(sinks).sum();
        let layers = self.weights.chunks(self.heads * self.slots);
        layers
            .map(|layer| layer.chunks(self.slots).map(share).collect())
            .collect()
    }

    fn write(&self, mut output: Output) -> Result<(), Failure> {
        for (index, weight) in self.weights.iter().enumerate() {
            let (head, slot) = (index / self.slots, index % self.slots);
            let line = format!(
                "{} {} {slot} {weight:.6e}\n",
                head / self.heads,
                head % self.heads
            );
            output.add(line.as_bytes())?;
        }
        output.finish()
    }
}

/// The whole text as ids.
fn sequence(arguments: &Arguments, model: &Model) -> Result<Vec<u32>, Failure> {
    if let Some(path) = &arguments.ids {
        return input::ids(path, model.config().vocab);
    }
    let text = input::text(arguments.file.as_deref(), "the text")?;
    let options = EncodeOptions {
        bos: bos(arguments.no_bos),
        special: arguments.special.special,
        ..EncodeOptions::default()
    };
    Ok(model.tokenize(&text, options)?)
}

/// Tokens A to A+N: what is fed, and one more that is only predicted.
struct Excerpt<'t> {
    tokens: &'t [u32],
    /// Predictions that the text allows.
    there: usize,
}

impl<'t> Excerpt<'t> {
    /// The excerpt; unless it is given, N is at most `most`, and never more.
    fn of(arguments: &Arguments, tokens: &'t [u32], most: usize) -> Result<Self, Failure> {
        let start = arguments.start;
        let rest = tokens.get(start..).unwrap_or(&[]);
        let there = rest.len().saturating_sub(1);
        if there == 0 {
            return Err(Failure::Input(format!(
                "the text has {}: from token {start} on there is nothing to predict",
                counted(tokens.len(), "token")
            )));
        }
        let count = arguments.count.unwrap_or(there.min(most));
        if count > there {
            return Err(Failure::Input(format!(
                "the text has {}, which make {} from token {start} on: {count} cannot be scored",
                counted(tokens.len(), "token"),
                counted(there, "prediction")
            )));
        }
        if count > most {
            return Err(Failure::Usage(format!(
                "--count {count} is more than the {most} tokens that a dense cache holds here"
            )));
        }
        let tokens = &rest[..=count];
        Ok(Excerpt { tokens, there })
    }

    /// Predictions that are scored, if every one is.
    fn count(&self) -> usize {
        self.tokens.len() - 1
    }
}

/// A number of things, in words.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Collects scores, and writes the requested files.
struct Scorer<'t> {
    tokens: &'t [u32],
    nats: Vec<f64>,
    dump: Option<Output>,
    scores: Option<Output>,
}

impl<'t> Scorer<'t> {
    fn new(arguments: &Arguments, tokens: &'t [u32], files: &mut Files) -> Result<Self, Failure> {
        Ok(Scorer {
            tokens,
            nats: Vec::with_capacity(tokens.len() / arguments.stride + 1),
            dump: files.may_create(arguments.dump.as_ref())?,
            scores: files.may_create(arguments.scores.as_ref())?,
        })
    }

    /// Feeds all tokens but the last, and scores every `stride`-th.
    fn run(&mut self, stream: &mut Stream<'_>, stride: usize) -> Result<(), Failure> {
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
                // Tokens after the last scored position change nothing.
                if at < fed.len() {
                    stream.absorb(between)?;
                }
            }
            counter.set(at);
        }
        Ok(())
    }

    /// Scores the prediction of the token after position `at`.
    fn score(&mut self, at: usize, logits: &[f32]) -> Result<(), Failure> {
        let nats = negative_log_likelihood(logits, self.tokens[at + 1] as usize);
        self.nats.push(nats);
        if let Some(dump) = &mut self.dump {
            for logit in logits {
                dump.add(&logit.to_le_bytes())?;
            }
        }
        match &mut self.scores {
            Some(scores) => scores.add(format!("{at} {nats:.6}\n").as_bytes()),
            None => Ok(()),
        }
    }

    /// The mean and its standard error.
    fn mean(&self) -> (f64, f64) {
        let n = self.nats.len() as f64;
        let mean = self.nats.iter().sum::<f64>() / n;
        let squares: f64 = self.nats.iter().map(|nats| (nats - mean).powi(2)).sum();
        let error = if n > 1.0 {
            (squares / (n - 1.0) / n).sqrt()
        } else {
            0.0
        };
        (mean, error)
    }

    /// Puts the files in their places; returns how many predictions were scored.
    fn finish(self) -> Result<usize, Failure> {
        for output in self.dump.into_iter().chain(self.scores) {
            output.finish()?;
        }
        Ok(self.nats.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_averaged_by_layer_and_head() {
        let weights = vec![1.0, 2.0, 9.0, 3.0, 1.0, 9.0, 0.0, 4.0, 9.0, 2.0, 2.0, 9.0];
        let mut attention = Attention {
            weights,
            heads: 2,
            slots: 3,
        };
        attention.finish(4);
        assert_eq!(attention.on_first(2), [[0.75, 1.0], [1.0, 1.0]]);
    }
}
