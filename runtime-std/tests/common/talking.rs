//! A model that can be chatted with, for tests.

use std::fs;
use std::path::{Path, PathBuf};

use brooklet::chat::CHATML;
use brooklet::convert::gguf_writer::Header;
use brooklet::core::gguf::{Gguf, Value};

use crate::common::tiny;

/// The tiny model with a chat template, in `folder`.
pub fn talking_model(folder: &Path) -> PathBuf {
    let bytes = fs::read(tiny()).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    let mut header = Header::with_metadata_of(&file);
    header.set("tokenizer.chat_template", Value::Str(CHATML.as_bytes()));
    for tensor in file.tensors() {
        let dims = &tensor.dims()[..tensor.rank()];
        header
            .tensor(tensor.name(), dims, tensor.format().unwrap())
            .unwrap();
    }
    let mut body = header.write(Vec::new()).unwrap();
    for tensor in file.tensors() {
        body.write(tensor.data()).unwrap();
    }
    let path = folder.join("talking.gguf");
    fs::write(&path, body.finish().unwrap().0).unwrap();
    path
}
