//! `brooklet quantize`: a copy of a model with its weights in another format.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use brooklet_core::gguf::Gguf;
use brooklet_core::model::ModelError;
use clap::Args;
use serde_json::{Map, json};

use super::cache::{threads, workers};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::json::{Noted, Said, write_json};
use super::model::AccessArguments;
use super::output::{Files, Output};
use super::progress::Counter;
use crate::Error;
use crate::convert::quantize::{Conversion, QuantizeError, Summary, Target};
use crate::notice::{Notice, Notices};
use crate::size::Size;
use crate::system::pool::Pool;

/// Arguments of `brooklet quantize`.
#[derive(Args)]
pub struct Arguments {
    /// A GGUF file, or the name of a model
    #[arg(value_name = "IN")]
    input: String,
    /// The file to write; it appears when it is whole
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format of the weight matrices: F16, Q8_0, Q6_K, Q4_K_M, Q2_K and others
    ///
    /// From the largest file to the smallest: F16, Q8_0, Q6_K, Q5_1, Q5_K_M, Q5_K_S, Q5_0, Q4_1,
    /// Q4_K_M, Q4_K_S, IQ4_NL, Q4_0, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K. Those that end in S, M or L are
    /// mixes, as is Q2_K: some tensors get more bits.
    #[arg(value_name = "FORMAT")]
    target: Target,
    /// Replace OUT if it exists
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

/// Writes the copy and reports its size.
pub fn quantize(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let threads = workers(arguments.threads);
    let open = arguments.access.open(&arguments.input)?;
    let input = open.file.path();
    let file = Gguf::parse(&open.file).map_err(|error| Error::Model {
        path: input.to_path_buf(),
        error: ModelError::Gguf(error),
    })?;
    let mut conversion =
        Conversion::plan(&file, arguments.target).map_err(wrong(arguments, input))?;
    if let Some(sinks) = open.manifest.as_ref().and_then(|manifest| manifest.sinks) {
        conversion.state_sinks(sinks);
    }
    let summary = conversion.summary();
    let pool = Pool::new(threads).map_err(|error| Failure::System {
        what: format!("{threads} threads"),
        error,
    })?;
    let mut new = Files::new(arguments.force)
        .reads_model(&open.file)
        .create(&arguments.output)?;
    if summary.requantized > 0 {
        notices.add(Notice::QuantizedTwice {
            quantized: summary.requantized,
            tensors: summary.tensors,
        });
    }
    let bytes = write(arguments, &conversion, &summary, &pool, input, &mut new)?;
    new.finish()?;
    if arguments.json {
        let report = report(arguments, input, &summary, bytes);
        let notices = Said(&notices);
        return write_json(out, &Noted { report, notices });
    }
    print(arguments, &summary, bytes, out).map_err(Failure::Output)
}

/// Fills the new file; returns its length.
fn write(
    arguments: &Arguments,
    conversion: &Conversion<'_>,
    summary: &Summary,
    pool: &Pool,
    input: &Path,
    new: &mut Output,
) -> Result<u64, Failure> {
    let interrupt = Interrupt::catch()?;
    let counter = Counter::new("quantize", summary.tensors);
    conversion
        .write(new, pool, &mut |done| {
            counter.set(done);
            !interrupt.is_set()
        })
        .map_err(wrong(arguments, input))
}

fn wrong(arguments: &Arguments, input: &Path) -> impl FnOnce(QuantizeError) -> Failure {
    move |error| match error {
        QuantizeError::Write(error) => Failure::Write {
            path: arguments.output.clone(),
            error,
        },
        error => Failure::Quantize {
            path: input.to_path_buf(),
            error,
        },
    }
}

fn print(
    arguments: &Arguments,
    summary: &Summary,
    bytes: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let size = |bytes: u64| Size(usize::try_from(bytes).unwrap_or(usize::MAX));
    writeln!(
        out,
        "{}: {}, {} ({bytes} bytes)",
        arguments.output.display(),
        arguments.target.name(),
        size(bytes)
    )?;
    writeln!(
        out,
        "weights     {} -> {}, {:.2} bits each",
        size(summary.bytes_before),
        size(summary.bytes_after),
        summary.bits_per_weight()
    )?;
    writeln!(
        out,
        "tensors     {}, of which {} were converted",
        summary.tensors, summary.converted
    )?;
    for (format, (count, bytes)) in &summary.formats {
        writeln!(out, "  {count:>5} {format:<8} {}", size(*bytes))?;
    }
    Ok(())
}

fn report(arguments: &Arguments, input: &Path, summary: &Summary, bytes: u64) -> serde_json::Value {
    let formats: Map<_, _> = summary
        .formats
        .iter()
        .map(|(name, (count, bytes))| {
            (
                (*name).to_owned(),
                json!({"tensors": count, "bytes": bytes}),
            )
        })
        .collect();
    json!({
        "input": input.display().to_string(),
        "output": arguments.output.display().to_string(),
        "format": arguments.target.name(),
        "bytes": bytes,
        "tensors": summary.tensors,
        "converted": summary.converted,
        "requantized": summary.requantized,
        "elements": summary.elements,
        "bytes_before": summary.bytes_before,
        "bytes_after": summary.bytes_after,
        "bits_per_weight": summary.bits_per_weight(),
        "formats": formats,
    })
}
