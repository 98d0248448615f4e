//! Finding the model that the files at a place are, and writing its GGUF file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use brooklet_core::quant::Format;

use super::{ConvertError, ctranslate2, moonshine, whisper_cpp};
use crate::system::mmap::{Access, ModelFile};

/// Names of the files of each form that has several; the last of CTranslate2's need not be there.
const MOONSHINE: [&str; 3] = [
    "encoder_model.ort",
    "decoder_model_merged.ort",
    "tokenizer.bin",
];
const MODEL: &str = "model.bin";
const VOCABULARIES: [&str; 2] = ["vocabulary.txt", "vocabulary.json"];
const CONFIG: &str = "config.json";

/// Bytes that tell the form of a file.
const BEGINNING: u64 = 64;

/// Forms of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Moonshine,
    CTranslate2,
    WhisperCpp,
}

/// The files of one model of another program.
#[derive(Debug)]
pub struct Package {
    form: Form,
    files: Vec<PathBuf>,
}

impl Package {
    /// Finds the model at `path`: a file of whisper.cpp, a `model.bin` of CTranslate2, a folder
    /// with one and its vocabulary, or a folder with Moonshine's three files.
    ///
    /// # Errors
    /// [`ConvertError::Unknown`] if there is none, [`ConvertError::Read`] for what cannot be read.
    pub fn find(path: &Path) -> Result<Package, ConvertError> {
        let folder = if path.is_dir() {
            path
        } else {
            let beginning = beginning(path).map_err(ConvertError::read(path))?;
            if whisper_cpp::is_whisper(&beginning) {
                return Ok(Package {
                    form: Form::WhisperCpp,
                    files: vec![path.to_owned()],
                });
            }
            if !ctranslate2::is_whisper(&beginning) {
                return Err(ConvertError::Unknown(path.to_owned()));
            }
            path.parent().unwrap_or(Path::new(""))
        };
        let there = |name: &&str| folder.join(name).is_file();
        if path.is_dir() && MOONSHINE.iter().all(there) {
            return Ok(Package {
                form: Form::Moonshine,
                files: MOONSHINE.map(|name| folder.join(name)).to_vec(),
            });
        }
        let model = if path.is_dir() {
            folder.join(MODEL)
        } else {
            path.to_owned()
        };
        if !model.is_file() {
            return Err(ConvertError::Unknown(path.to_owned()));
        }
        let vocabulary = VOCABULARIES.into_iter().find(there);
        let vocabulary = vocabulary.ok_or_else(|| {
            ConvertError::Missing(format!("{} beside {MODEL}", VOCABULARIES.join(" or ")))
        })?;
        let mut files = vec![model, folder.join(vocabulary)];
        files.extend(there(&CONFIG).then(|| folder.join(CONFIG)));
        Ok(Package {
            form: Form::CTranslate2,
            files,
        })
    }

    /// The files, which are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Name of the files' form, for people.
    pub fn form(&self) -> &'static str {
        match self.form {
            Form::Moonshine => "Moonshine, ONNX Runtime",
            Form::CTranslate2 => "Whisper, CTranslate2",
            Form::WhisperCpp => "Whisper, whisper.cpp",
        }
    }

    /// Number of the files' tensors that are quantised, and of all tensors, where quantising them
    /// again loses more: `None` for Moonshine's, which are integers with one scale each.
    ///
    /// # Errors
    /// As [`Package::write`].
    pub fn quantized(&self) -> Result<Option<(usize, usize)>, ConvertError> {
        let path = &self.files[0];
        let file = ModelFile::open(path, Access::Map).map_err(ConvertError::read(path))?;
        match self.form {
            Form::Moonshine => Ok(None),
            Form::CTranslate2 => ctranslate2::quantized(&file).map(Some),
            Form::WhisperCpp => whisper_cpp::quantized(&file).map(Some),
        }
    }

    /// Writes the model with its matrices in `format`, one of F32, F16 and Q8_0; returns the number
    /// of bytes. The files are mapped; one tensor at a time is in memory.
    ///
    /// # Errors
    /// The first thing that is wrong with the files, or [`ConvertError::Write`].
    pub fn write(&self, format: Format, out: impl Write) -> Result<u64, ConvertError> {
        let open =
            |path: &PathBuf| ModelFile::open(path, Access::Map).map_err(ConvertError::read(path));
        let files: Vec<ModelFile> = self.files.iter().map(open).collect::<Result<_, _>>()?;
        let files: Vec<&[u8]> = files.iter().map(|file| &file[..]).collect();
        match (self.form, &files[..]) {
            (Form::Moonshine, &[encoder, decoder, tokenizer]) => {
                let files = moonshine::Files {
                    encoder,
                    decoder,
                    tokenizer,
                };
                moonshine::write(&files, format, out)
            }
            (Form::CTranslate2, &[model, vocabulary, ref rest @ ..]) => {
                let files = ctranslate2::Files {
                    model,
                    vocabulary,
                    config: rest.first().copied(),
                };
                ctranslate2::write(&files, format, out)
            }
            (Form::WhisperCpp, &[file]) => whisper_cpp::write(file, format, out),
            _ => unreachable!("every form has its number of files"),
        }
    }
}

fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BEGINNING).read_to_end(&mut bytes)?;
    Ok(bytes)
}
