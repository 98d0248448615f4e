//! `brooklet quantize`: a copy of a model with its weights in another format.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use brooklet_core::gguf::Gguf;
use brooklet_core::model::ModelError;
use clap::Args;
use serde_json::{Map, json};

use super::cache::{threads, workers};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::json::write_json;
use super::model;
use super::progress::{self, Counter};
use crate::Error;
use crate::convert::new_file::NewFile;
use crate::convert::quantize::{Conversion, QuantizeError, Summary, Target};
use crate::size::Size;
use crate::system::mmap::Access;
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
    /// Threads that compute; as many as there are processors unless given
    #[arg(short, long, value_parser = threads())]
    threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Writes the copy and reports its size.
pub fn quantize(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let threads = workers(arguments.threads);
    let open = model::open(&arguments.input, Access::Map)?;
    let input = open.file.path();
    refuse_the_same_file(input, &arguments.output)?;
    let file = Gguf::parse(&open.file).map_err(|error| Error::Model {
        path: input.to_path_buf(),
        error: ModelError::Gguf(error),
    })?;
    let conversion = Conversion::plan(&file, arguments.target).map_err(wrong(arguments, input))?;
    let summary = conversion.summary();
    let pool = Pool::new(threads).map_err(|error| Failure::System {
        what: format!("{threads} threads"),
        error,
    })?;
    let bytes = write(arguments, &conversion, &summary, &pool, input)?;
    if arguments.json {
        return write_json(out, &report(arguments, input, &summary, bytes));
    }
    print(arguments, &summary, bytes, out).map_err(Failure::Output)
}

/// Makes the new file; returns its length.
fn write(
    arguments: &Arguments,
    conversion: &Conversion<'_>,
    summary: &Summary,
    pool: &Pool,
    input: &Path,
) -> Result<u64, Failure> {
    let interrupt = Interrupt::catch()?;
    let cannot_write = |error| Failure::Write {
        path: arguments.output.clone(),
        error,
    };
    let mut new = create(&arguments.output, arguments.force)?;
    if summary.requantized > 0 {
        progress::say(&format!(
            "{}: quantised already ({} of {} tensors): the model's F16 or F32 file makes a better copy",
            input.display(),
            summary.requantized,
            summary.tensors
        ));
    }
    let counter = Counter::new("quantize", summary.tensors);
    let bytes = conversion
        .write(&mut new, pool, &mut |done| {
            counter.set(done);
            !interrupt.is_set()
        })
        .map_err(wrong(arguments, input))?;
    new.finish().map_err(cannot_write)?;
    Ok(bytes)
}

/// Starts the file that a command writes.
pub fn create(output: &Path, force: bool) -> Result<NewFile, Failure> {
    NewFile::create(output, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists if !force => {
            Failure::Input(format!("{} exists: --force replaces it", output.display()))
        }
        _ => Failure::Write {
            path: output.to_path_buf(),
            error,
        },
    })
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

/// Refuses an output that is the input: the input stays mapped while the output is written, and has
/// bits that the output loses.
pub fn refuse_the_same_file(input: &Path, output: &Path) -> Result<(), Failure> {
    match (fs::canonicalize(input), fs::canonicalize(output)) {
        (Ok(from), Ok(to)) if from == to => Err(Failure::Input(format!(
            "{} is the input: give the new file another name",
            output.display()
        ))),
        _ => Ok(()),
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
