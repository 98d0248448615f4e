//! `brooklet slim`: a copy of a model whose values are computed from its keys.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use brooklet_core::cache::{ElementType, Layout, LayoutChoice};
use brooklet_core::model::Config;
use brooklet_core::plan::PlanError;
use brooklet_core::quant::Format;
use brooklet_core::tokenizer::EncodeOptions;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::cache::{ELEMENT_TYPES, Names, one_of, threads, workers};
use super::failure::Failure;
use super::input;
use super::interrupt::Interrupt;
use super::json::{Noted, Said, write_json};
use super::model::AccessArguments;
use super::numbers::{positive, whole};
use super::output::{Files, Output};
use super::progress::Counter;
use crate::convert::slim::file::{SlimLayer, Statement, Storage};
use crate::convert::slim::layer::{Analysis, Errors, Parts, SinkValues, type_index};
use crate::convert::slim::{Calibration, Request, analyse, bytes_per_token, check, own_text};
use crate::model::Model;
use crate::notice::{Notice, Notices, Percent};
use crate::planning::DEFAULT_SINKS;
use crate::size::Size;
use crate::stated::SlimErrors;

/// Names of the layouts that a layer may get, and their help.
const LAYOUTS: Names = &[
    (
        "auto",
        "The smallest that holds the bound; keys and values where none does",
    ),
    ("k", "Keys alone, whatever the error"),
    (
        "k+r",
        "Keys and the fewest rank-correction channels that hold the bound; refused where none does",
    ),
    (
        "x",
        "The layer's input, for models that do not rotate keys; refused, since it needs no copy",
    ),
];

/// Refuses the layout x, for which no file is made.
fn check_layout(config: &Config, layout: LayoutChoice) -> Result<(), Failure> {
    match layout {
        LayoutChoice::X if config.may_keep_inputs() => Err(Failure::Usage(
            "a cache of layer inputs needs no copy of the model: run it with --cache x".into(),
        )),
        LayoutChoice::X => Err(Failure::Input(
            PlanError::Inputs {
                rotated: config.shape().is_rotated(),
            }
            .to_string(),
        )),
        _ => Ok(()),
    }
}

/// A part of the construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// Cache keys without their mean
    Centring,
    /// Keep the first sinks' values as they are (for the errors that are measured; the engine
    /// always does)
    Sinks,
    /// Choose map and channels for the cache's rounding error
    Noise,
}

/// Most tokens of calibration: far more than change its result.
const MOST_CALIBRATION: usize = 1 << 20;

/// Arguments of `brooklet slim`.
#[derive(Args)]
pub struct Arguments {
    /// A GGUF file, or the name of a model
    #[arg(value_name = "IN")]
    input: String,
    /// The file to write; it appears when it is whole
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// A text like those that the model will read; by default, text that the model writes
    #[arg(long, value_name = "TEXT")]
    calib: Option<PathBuf>,
    /// Most tokens of the text that are used
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = whole(1, MOST_CALIBRATION))]
    calib_tokens: usize,
    /// Most relative error of a layer's attention output
    #[arg(long, value_name = "E", default_value_t = 1e-2, value_parser = positive())]
    bound: f64,
    /// Layouts that a layer may get
    #[arg(long, value_parser = one_of::<LayoutChoice>(LAYOUTS), default_value = "auto", hide_possible_values = false)]
    layout: LayoutChoice,
    /// Element type of the cache that the layers are made for
    #[arg(long, value_name = "TYPE", value_parser = one_of::<ElementType>(ELEMENT_TYPES), default_value = "q8_0")]
    cache_type: ElementType,
    /// Store maps and channels in F32; by default in F16, where their values fit
    #[arg(long)]
    f32: bool,
    /// Leave W_V out of layers whose values are computed from keys: a smaller file, which --cache
    /// kv cannot run
    #[arg(long)]
    drop_v: bool,
    /// Leave a part of the construction out, to see what it gains; may be given several times
    #[arg(long, value_name = "PART", value_enum)]
    without: Vec<PartName>,
    /// Write the measurements, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace OUT and the report if they exist
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: AccessArguments,
    /// Threads that compute; as many as there are big cores unless given
    #[arg(short, long, value_parser = threads())]
    threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Condition number above which a matrix of f32 values is singular but for rounding.
const SINGULAR: f64 = 1e12;

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct ByType {
    pub f32: f64,
    pub f16: f64,
    pub q8_0: f64,
}

impl From<Errors> for ByType {
    fn from([f32, f16, q8_0]: Errors) -> ByType {
        ByType { f32, f16, q8_0 }
    }
}

#[derive(Serialize)]
struct LayerReport {
    layer: usize,
    condition: f64,
    smallest_singular_values: Vec<f64>,
    largest_singular_value: f64,
    layout: &'static str,
    rank: usize,
    map_format: Option<&'static str>,
    kv_output_error: ByType,
    value_error: Option<ByType>,
    output_error: Option<ByType>,
    bytes_per_token_before: usize,
    bytes_per_token_after: usize,
}

#[derive(Serialize)]
struct Report {
    calibration_tokens: usize,
    cache_type: &'static str,
    bound: f64,
    bytes_per_token_before: usize,
    bytes_per_token_after: usize,
    layers: Vec<LayerReport>,
    /// The smallest error of a layer that could be made slim.
    #[serde(skip)]
    smallest_error: f64,
}

/// Writes the copy, and reports the layout and the errors of each layer.
pub fn slim(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let workers = workers(arguments.threads);
    let open = arguments.access.open(&arguments.input)?;
    let mut files = Files::new(arguments.force)
        .reads_model(&open.file)
        .may_read(arguments.calib.as_ref());
    let (model, manifest) = open.check_text(workers)?;
    let config = model.config();
    check(config)?;
    check_layout(config, arguments.layout)?;
    let request = arguments.request(
        arguments.layout,
        manifest
            .and_then(|manifest| manifest.sinks)
            .or_else(|| model.sinks()),
    );
    let interrupt = Interrupt::catch()?;
    let mut new = files.create(&arguments.output)?;
    let report_file = files.may_create(arguments.report.as_ref())?;
    let text = match &arguments.calib {
        Some(path) => model.tokenize(&input::read(path)?, EncodeOptions::default())?,
        None => own_text(&model, arguments.calib_tokens)?,
    };
    if arguments.calib.is_some() && text.len() > arguments.calib_tokens {
        notices.add(Notice::TextCut {
            what: "tokens",
            there: text.len(),
            used: arguments.calib_tokens,
            reason: "--calib-tokens sets the number",
        });
    }
    let mut calibration = Calibration::new(&model, &text, arguments.calib_tokens)?;
    let storage = Storage {
        format: if arguments.f32 {
            Format::F32
        } else {
            Format::F16
        },
        drop_values: arguments.drop_v,
    };
    let counter = Counter::new("slim", config.layers);
    let (mut layers, mut reports) = (Vec::new(), Vec::new());
    let mut smallest_error = f64::INFINITY;
    for index in 0..config.layers {
        if let Some(failure) = interrupt.failure() {
            return Err(failure);
        }
        let analysis = analyse(&model, &mut calibration, index, &request)?;
        if request.wanted == LayoutChoice::K
            && (analysis.chosen.is_none() || analysis.condition > SINGULAR)
        {
            return Err(Failure::Input(format!(
                "layer {index}: W_K is singular or nearly so (its condition number is {:.1e}): values cannot be computed from keys alone; \
                 --layout auto adds channels or keeps values",
                analysis.condition
            )));
        }
        if analysis.chosen.is_none() && request.wanted == LayoutChoice::KR {
            return Err(arguments.none_holds(index, &analysis));
        }
        smallest_error = smallest_error.min(analysis.smallest_error);
        reports.push(report_of(
            config,
            index,
            &analysis,
            &request,
            storage.format,
        ));
        layers.push(analysis.chosen.map(|chosen| chosen.layer));
        counter.set(index + 1);
    }
    drop(counter);
    let sum = |of: fn(&LayerReport) -> usize| reports.iter().map(of).sum();
    let report = Report {
        calibration_tokens: calibration.tokens(),
        cache_type: request.cache_type.name(),
        bound: arguments.bound,
        bytes_per_token_before: sum(|layer| layer.bytes_per_token_before),
        bytes_per_token_after: sum(|layer| layer.bytes_per_token_after),
        layers: reports,
        smallest_error,
    };
    let errors = report
        .errors(&request)
        .ok_or_else(|| report.none_is_slim(&request))?;
    let accepted = Percent::of(arguments.bound as f32);
    if Percent::of(errors.accepted) != accepted {
        notices.add(Notice::SlimError {
            cache_type: request.cache_type.name(),
            percent: Percent::of(errors.accepted),
            accepted,
        });
    }
    let text = serde_json::to_string(&report).map_err(|error| new.failed()(error.into()))?;
    let statement = Statement {
        report: &text,
        errors,
        sinks: request.sinks,
    };
    let bytes = write(&model, &layers, storage, &statement, &mut new).map_err(new.failed())?;
    if let Some(mut file) = report_file {
        file.add(text.as_bytes())?;
        file.add(b"\n")?;
        file.finish()?;
    }
    new.finish()?;
    if arguments.json {
        let notices = Said(&notices);
        return write_json(out, &Noted { report, notices });
    }
    report
        .print(&arguments.output, bytes, out)
        .map_err(Failure::Output)
}

fn write(
    model: &Model,
    layers: &[Option<SlimLayer>],
    storage: Storage,
    statement: &Statement<'_>,
    new: &mut Output,
) -> io::Result<u64> {
    crate::convert::slim::file::write(model.gguf(), layers, storage, statement, new)
}

impl Arguments {
    fn request(&self, wanted: LayoutChoice, sinks: Option<usize>) -> Request {
        let without = |part| self.without.contains(&part);
        Request {
            bound: self.bound,
            cache_type: self.cache_type,
            wanted,
            sinks: sinks.unwrap_or(DEFAULT_SINKS),
            parts: Parts {
                centring: !without(PartName::Centring),
                sinks: match (without(PartName::Sinks), self.drop_v) {
                    (true, _) => SinkValues::Cache,
                    (false, true) => SinkValues::Keys,
                    (false, false) => SinkValues::Inputs,
                },
                noise: !without(PartName::Noise),
            },
        }
    }

    fn none_holds(&self, index: usize, analysis: &Analysis) -> Failure {
        let best = analysis.smallest_error;
        Failure::Input(format!(
            "layer {index}: no layout that is smaller than keys and values holds the bound of {}; the smallest error is {best:.2e}",
            self.bound
        ))
    }
}

fn report_of(
    config: &Config,
    layer: usize,
    analysis: &Analysis,
    request: &Request,
    format: Format,
) -> LayerReport {
    let chosen = analysis.chosen.as_ref();
    let layout = chosen.map_or(Layout::Kv, |chosen| chosen.layout());
    let values = &analysis.singular_values;
    LayerReport {
        layer,
        condition: analysis.condition,
        smallest_singular_values: values[values.len().saturating_sub(4)..].to_vec(),
        largest_singular_value: values.first().copied().unwrap_or(0.0),
        layout: match layout {
            Layout::KR { rank: 0 } => "k",
            layout => layout.name(),
        },
        rank: layout.rank(),
        map_format: chosen.map(|chosen| chosen.layer.map_format(format).name()),
        kv_output_error: analysis.kv.into(),
        value_error: chosen.map(|chosen| chosen.of_values.into()),
        output_error: chosen.map(|chosen| chosen.of_output.into()),
        bytes_per_token_before: bytes_per_token(config, request.cache_type, Layout::Kv),
        bytes_per_token_after: bytes_per_token(config, request.cache_type, layout),
    }
}

impl Report {
    /// The largest errors of the slim layers; `None` if there is none.
    fn errors(&self, request: &Request) -> Option<SlimErrors> {
        let of_slim: Vec<ByType> = self
            .layers
            .iter()
            .filter_map(|of| of.output_error)
            .collect();
        if of_slim.is_empty() {
            return None;
        }
        let largest = |of: fn(&ByType) -> f64| of_slim.iter().map(of).fold(0.0, f64::max) as f32;
        let by_type = [
            largest(|of| of.f32),
            largest(|of| of.f16),
            largest(|of| of.q8_0),
        ];
        // With --layout k whatever the error is was asked for.
        let accepted = by_type[type_index(request.cache_type)].max(self.bound as f32);
        Some(SlimErrors { by_type, accepted })
    }

    /// The reason why there is nothing to write.
    fn none_is_slim(&self, request: &Request) -> Failure {
        let smallest = self.smallest_error;
        let of_kv = self.layers.iter().map(|layer| {
            let ByType { f32, f16, q8_0 } = layer.kv_output_error;
            [f32, f16, q8_0][type_index(request.cache_type)]
        });
        let name = request.cache_type.name();
        Failure::Input(format!(
            "no layer can be slim with a cache in {name} and the bound of {}: the smallest error of one is {smallest:.2e}, and keys and values in {name} \
             err by up to {:.2e} themselves (--bound and --cache-type)",
            self.bound,
            of_kv.fold(0.0, f64::max),
        ))
    }

    fn print(&self, path: &Path, bytes: u64, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "errors in percent of the attention output, for a cache in f16 and in q8_0\n"
        )?;
        writeln!(
            out,
            "layer  cond(W_K)  layout   V f16  V q8_0  out f16  out q8_0  (kv f16  kv q8_0)  bytes a token"
        )?;
        for layer in &self.layers {
            let percent = |error: Option<f64>| {
                error.map_or("-".into(), |error| format!("{:.3}", 100.0 * error))
            };
            let layout = match layer.rank {
                0 => layer.layout.to_string(),
                rank => format!("k+{rank}"),
            };
            let values = layer.value_error.as_ref();
            let output = layer.output_error.as_ref();
            writeln!(
                out,
                "{:5}  {:9.3e}  {:6}  {:>6}  {:>6}  {:>7}  {:>8}  {:>7}  {:>7}  {} -> {}",
                layer.layer,
                layer.condition,
                layout,
                percent(values.map(|of| of.f16)),
                percent(values.map(|of| of.q8_0)),
                percent(output.map(|of| of.f16)),
                percent(output.map(|of| of.q8_0)),
                percent(Some(layer.kv_output_error.f16)),
                percent(Some(layer.kv_output_error.q8_0)),
                layer.bytes_per_token_before,
                layer.bytes_per_token_after,
            )?;
        }
        let (before, after) = (self.bytes_per_token_before, self.bytes_per_token_after);
        let fewer = 100.0 * (1.0 - after as f64 / before as f64);
        writeln!(
            out,
            "\n{}: {}; a token takes {after} bytes of a {} cache instead of {before}, {fewer:.1} % fewer",
            path.display(),
            Size(usize::try_from(bytes).unwrap_or(usize::MAX)),
            self.cache_type
        )
    }
}
