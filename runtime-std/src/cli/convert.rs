//! `brooklet convert`: a GGUF file of a speech model, from the files of another program.

use std::io::{self, Write};
use std::path::PathBuf;

use brooklet_core::quant::Format;
use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::json::{Noted, Said, write_json};
use super::output::Files;
use crate::convert::speech::ConvertError;
use crate::convert::speech::package::Package;
use crate::notice::{Notice, Notices};
use crate::size::Size;

/// Formats that are written.
const FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::Q8_0];

fn format(name: &str) -> Result<Format, String> {
    let mut formats = FORMATS.into_iter();
    let found = formats.find(|format| format.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| "the formats are F32, F16 and Q8_0".into())
}

/// Arguments of `brooklet convert`.
#[derive(Args)]
pub struct Arguments {
    /// A ggml-*.bin of whisper.cpp, or a folder with a model of CTranslate2 or of Moonshine
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write; it appears when it is whole
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format of the weight matrices: Q8_0, F16 or F32; for others, quantise the new file
    #[arg(value_name = "FORMAT", value_parser = format, default_value = "Q8_0")]
    format: Format,
    /// Replace OUT if it exists
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// An output that fails when a signal comes.
struct Stoppable<'i, W> {
    out: W,
    interrupt: &'i Interrupt,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.interrupt.is_set() {
            return Err(io::Error::other("a signal has come"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes the file and reports its size.
pub fn convert(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Arguments {
        input,
        output,
        format,
        ..
    } = arguments;
    let failed = |error| Failure::Convert {
        path: input.clone(),
        error,
    };
    let package = Package::find(input).map_err(failed)?;
    let files = package
        .files()
        .fold(Files::new(arguments.force), Files::reads);
    let mut new = { files }.create(output)?;
    if let Some((quantized @ 1.., tensors)) = package.quantized().map_err(failed)?
        && format.is_quantized()
    {
        notices.add(Notice::QuantizedTwice { quantized, tensors });
    }
    let interrupt = Interrupt::catch()?;
    let stoppable = Stoppable {
        out: &mut new,
        interrupt: &interrupt,
    };
    let written = package.write(*format, stoppable);
    if let Some(failure) = interrupt.failure() {
        return Err(failure);
    }
    let bytes = written.map_err(|error| match error {
        ConvertError::Write(error) => Failure::Write {
            path: output.clone(),
            error,
        },
        error => failed(error),
    })?;
    new.finish()?;
    if arguments.json {
        let report = json!({
            "input": input.display().to_string(),
            "output": output.display().to_string(),
            "form": package.form(),
            "format": format.name(),
            "bytes": bytes,
        });
        let notices = Said(&notices);
        return write_json(out, &Noted { report, notices });
    }
    let size = Size(usize::try_from(bytes).unwrap_or(usize::MAX));
    writeln!(
        out,
        "{}: {}, {}, {size} ({bytes} bytes)",
        output.display(),
        package.form(),
        format.name()
    )
    .map_err(Failure::Output)
}
