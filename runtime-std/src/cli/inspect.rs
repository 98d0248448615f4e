//! `brooklet inspect`: contents of a file, also of one that this program cannot run.

use std::collections::BTreeMap;
use std::io::{self, Write};

use brooklet_core::gguf::{Gguf, TensorInfo, Value};
use brooklet_core::model::ModelError;
use brooklet_core::quant::GgmlType;
use clap::Args;
use serde_json::{Map, json};

use super::failure::Failure;
use super::json::write_json;
use super::licence::licence;
use super::model::AccessArguments;
use crate::Error;
use crate::model::check_file;
use crate::size::Size;

/// Longest text and longest list that are shown whole.
const SHOWN_TEXT: usize = 200;
const SHOWN_ELEMENTS: usize = 6;

/// Arguments of `brooklet inspect`.
#[derive(Args)]
pub struct Arguments {
    /// A GGUF file, or the name of a model as `-m` takes it
    model: String,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    access: AccessArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the file's contents.
pub fn inspect(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let open = arguments.access.open(&arguments.model)?;
    let path = open.file.path().to_path_buf();
    let file = Gguf::parse(&open.file).map_err(|error| Error::Model {
        path,
        error: ModelError::Gguf(error),
    })?;
    let report = Report {
        path: open.file.path().display().to_string(),
        file,
        licence: licence(&file).or(open.manifest.map(|manifest| manifest.licence)),
        formats: formats(&file),
        problem: check_file(&open.file).err().map(reason),
    };
    if arguments.json {
        write_json(out, &report.json(arguments.tensors))
    } else {
        report.text(arguments.tensors, out).map_err(Failure::Output)
    }
}

struct Report<'a> {
    path: String,
    file: Gguf<'a>,
    licence: Option<String>,
    formats: BTreeMap<String, (usize, usize)>,
    /// The reason why this program cannot run it.
    problem: Option<String>,
}

/// The sentence of an error, without the file that the report is about.
fn reason(error: Error) -> String {
    match error {
        Error::Model { error, .. } => error.to_string(),
        Error::Tokenizer { error, .. } => error.to_string(),
        error => error.to_string(),
    }
}

/// Name of a tensor's format; its number if nobody knows it.
fn format_name(tensor: &TensorInfo<'_>) -> String {
    GgmlType::of(tensor.ggml_type()).map_or_else(
        || format!("type {}", tensor.ggml_type()),
        |known| known.name.to_owned(),
    )
}

/// Tensors and bytes by format.
fn formats(file: &Gguf<'_>) -> BTreeMap<String, (usize, usize)> {
    let mut formats = BTreeMap::new();
    for tensor in file.tensors() {
        let entry: &mut (usize, usize) = formats.entry(format_name(&tensor)).or_default();
        entry.0 += 1;
        entry.1 += tensor.data().len();
    }
    formats
}

impl Report<'_> {
    fn text(&self, tensors: bool, out: &mut dyn Write) -> io::Result<()> {
        let file = &self.file;
        writeln!(out, "file        {}", self.path)?;
        writeln!(
            out,
            "size        {} ({} bytes)",
            Size(file.bytes().len()),
            file.bytes().len()
        )?;
        writeln!(
            out,
            "format      GGUF version {}, data from byte {}",
            file.version(),
            file.data_start()
        )?;
        writeln!(
            out,
            "licence     {}",
            self.licence.as_deref().unwrap_or("not stated")
        )?;
        match &self.problem {
            None => writeln!(out, "runs        yes")?,
            Some(problem) => writeln!(out, "runs        no: {problem}")?,
        }
        writeln!(out, "\nmetadata    {} entries", file.metadata_count())?;
        for (key, value) in file.metadata() {
            writeln!(out, "  {key} = {}", shown(&value))?;
        }
        writeln!(out, "\ntensors     {}", file.tensor_count())?;
        for (format, (count, bytes)) in &self.formats {
            writeln!(out, "  {count:>5} {format:<8} {}", Size(*bytes))?;
        }
        for tensor in file.tensors().filter(|_| tensors) {
            let shape: Vec<String> = tensor.dims()[..tensor.rank()]
                .iter()
                .map(usize::to_string)
                .collect();
            let (name, format) = (tensor.name(), format_name(&tensor));
            writeln!(
                out,
                "  {name:<32} {format:<8} {:>16} {:>10}",
                shape.join(" x "),
                Size(tensor.data().len())
            )?;
        }
        Ok(())
    }

    fn json(&self, tensors: bool) -> serde_json::Value {
        let file = &self.file;
        let metadata: Map<_, _> = file
            .metadata()
            .map(|(key, value)| (key.to_owned(), as_json(&value)))
            .collect();
        let formats: Map<_, _> = self
            .formats
            .iter()
            .map(|(name, (count, bytes))| (name.clone(), json!({"tensors": count, "bytes": bytes})))
            .collect();
        let mut report = json!({
            "path": self.path,
            "bytes": file.bytes().len(),
            "version": file.version(),
            "licence": self.licence,
            "runs": self.problem.is_none(),
            "problem": self.problem,
            "metadata": metadata,
            "formats": formats,
            "tensor_count": file.tensor_count(),
        });
        if tensors {
            report["tensors"] = file.tensors().map(|tensor| tensor_json(&tensor)).collect();
        }
        report
    }
}

fn tensor_json(tensor: &TensorInfo<'_>) -> serde_json::Value {
    json!({
        "name": tensor.name(),
        "format": format_name(tensor),
        "shape": tensor.dims()[..tensor.rank()],
        "bytes": tensor.data().len(),
    })
}

/// Returns a value on one line, cut if it is long, with control characters escaped.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Str(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let cut: String = text.chars().take(SHOWN_TEXT).collect();
            let more = if cut.len() < text.len() {
                format!("... ({} bytes)", bytes.len())
            } else {
                String::new()
            };
            format!("{cut:?}{more}")
        }
        Value::Array(array) => {
            let first: Vec<String> = array
                .elements()
                .take(SHOWN_ELEMENTS)
                .map(|element| shown(&element))
                .collect();
            let more = if array.len() > first.len() {
                format!(", ... ({} in all)", array.len())
            } else {
                String::new()
            };
            format!("[{}{more}]", first.join(", "))
        }
        other => as_json(other).to_string(),
    }
}

/// Returns a value as JSON; an array only as its length and first elements.
fn as_json(value: &Value<'_>) -> serde_json::Value {
    match *value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::F32(v) => v.into(),
        Value::Bool(v) => v.into(),
        Value::Str(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::U64(v) => v.into(),
        Value::I64(v) => v.into(),
        Value::F64(v) => v.into(),
        Value::Array(array) => json!({
            "len": array.len(),
            "first": array.elements().take(SHOWN_ELEMENTS).map(|element| as_json(&element)).collect::<Vec<_>>(),
        }),
    }
}
