//! Programs that must not compile, and what the compiler must say about them.

use std::fs;
use std::path::Path;

use crate::firmware::{Build, Firmware};
use crate::reference::Reference;
use crate::{Error, MODELS};

/// For every model: the exact budget compiles, one byte less is refused with the three numbers; so is a file cut short.
pub fn check() -> Result<(), Error> {
    for board_model in MODELS {
        let (name, model) = (board_model.name, board_model.file());
        let needed = Reference::run(&model)?.plan.bytes();
        Firmware {
            model: &model,
            budget: Some(needed),
        }
        .image("firmware-exact")?;
        let given = needed - 1;
        let refusal = refused(&model, Some(given))?;
        println!(
            "{name}.gguf in {given} bytes: {}",
            line_with(&refusal, &needed_given_missing(needed, given))?
        );
    }
    let folder = std::env::temp_dir().join(format!("brooklet-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let cut = folder.join("cut.gguf");
    let whole = fs::read(MODELS[0].file())?;
    fs::write(&cut, &whole[..whole.len() - 1])?;
    let refusal = refused(&cut, None);
    fs::remove_dir_all(&folder)?;
    println!(
        "a file one byte short: {}",
        line_with(&refusal?, &["not a whole GGUF file".into()])?
    );
    Ok(())
}

/// What the message of a budget too small must contain.
fn needed_given_missing(needed: usize, given: usize) -> [String; 3] {
    [
        format!("needs {needed} bytes"),
        format!("budget is {given} bytes"),
        format!("{} byte is missing", needed - given),
    ]
}

/// What the compiler says instead of compiling.
fn refused(model: &Path, budget: Option<usize>) -> Result<String, Error> {
    match (Firmware { model, budget }).build()? {
        Build::Refused(message) => Ok(message),
        Build::Image(_) => Err(format!(
            "{} with budget {budget:?} compiles, and must not",
            model.display()
        )
        .into()),
    }
}

/// The first line of `text` that has all of `words` in it.
fn line_with<'t>(text: &'t str, words: &[String]) -> Result<&'t str, Error> {
    text.lines()
        .find(|line| words.iter().all(|word| line.contains(word.as_str())))
        .map(str::trim)
        .ok_or_else(|| format!("no line with {words:?} in the compiler's message:\n{text}").into())
}
