//! Names of models among the words of a command line, and the names that were probably meant.

use super::failure::Failure;
use crate::models::hub;
use crate::models::manifest::Manifest;

/// Most letters by which a word may differ from the name that it probably means.
const NEAR: usize = 2;

/// Shortest name that a near word may mean: shorter ones are near to words of any language.
const LONG_ENOUGH: usize = 8;

/// The model and the text of a command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// The model, if one is named.
    pub model: Option<String>,
    /// The text, if there is one.
    pub text: Option<String>,
}

impl Named {
    /// Reads `[MODEL] [TEXT]`, `option` being the model of `-m`.
    ///
    /// The rule: without -m, the first word is a model if it is a name that `brooklet models`
    /// lists, begins with `hf:`, or ends in `.gguf`; all else is text.
    pub fn read(
        option: Option<&str>,
        first: Option<&str>,
        second: Option<&str>,
    ) -> Result<Named, Failure> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        match (option, first, second) {
            (Some(_), Some(_), Some(second)) => Err(Failure::Usage(format!(
                "-m names the model already, so there is one text: put it in quotes, \"{}\" too",
                second.escape_debug()
            ))),
            (None, Some(first), _) if is_model(first) => Ok(Named {
                model: owned(Some(first)),
                text: owned(second),
            }),
            (None, Some(first), Some(_)) => Err(Failure::Usage(format!(
                "\"{}\" names no model{}; a text of several words stands in quotes",
                first.escape_debug(),
                hint(first)
            ))),
            (None, Some(first), None) if near(first).is_some() => Err(Failure::Usage(format!(
                "\"{0}\" names no model{1}; to continue it as a text, name the model by -m",
                first.escape_debug(),
                hint(first)
            ))),
            (option, first, _) => Ok(Named {
                model: owned(option),
                text: owned(first),
            }),
        }
    }
}

/// True if a word names a model, whatever else it could be.
fn is_model(word: &str) -> bool {
    let ends = |end: &str| {
        word.len() > end.len()
            && word.is_char_boundary(word.len() - end.len())
            && word[word.len() - end.len()..].eq_ignore_ascii_case(end)
    };
    let is_one_line = !word.contains(['\n', '\r']);
    Manifest::find(word).is_some()
        || (is_one_line && (word.starts_with(hub::PREFIX) || ends(".gguf")))
}

/// The name of a model that a word probably means.
fn near(word: &str) -> Option<String> {
    let word = word.to_lowercase();
    let (distance, name) = Manifest::all()
        .into_iter()
        .map(|manifest| (distance(&word, &manifest.name), manifest.name))
        .min()?;
    let is_near = distance == 0 || (distance <= NEAR && name.len() >= LONG_ENOUGH);
    is_near.then_some(name)
}

/// The end of a sentence about a name that does not exist: what was probably meant.
pub fn hint(word: &str) -> String {
    near(word).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// Letters to insert, leave out or replace to get from one text to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_a_model_if_it_looks_like_one() {
        let read = |option, first, second| {
            let named = Named::read(option, first, second).map_err(|error| error.to_string())?;
            Ok::<_, String>((named.model, named.text))
        };
        let some = |text: &str| Some(text.to_owned());
        for (first, second) in [
            ("smollm2-135m", None),
            ("a/b.gguf", Some("The sea")),
            ("./B.GGUF", Some("tiny")),
            ("hf:a/b/c.gguf", None),
        ] {
            let expected = Ok((some(first), second.map(str::to_owned)));
            assert_eq!(read(None, Some(first), second), expected);
        }
        for text in [
            "The sea was",
            "gguf",
            ".gguf",
            "smoll",
            "small talk",
            "Tiny house",
        ] {
            assert_eq!(read(None, Some(text), None), Ok((None, some(text))));
            assert_eq!(
                read(Some("m"), Some(text), None),
                Ok((some("m"), some(text)))
            );
        }
        assert_eq!(read(None, None, None), Ok((None, None)));
        // With -m even a model's name is text.
        let expected = Ok((some("m"), some("tiny")));
        assert_eq!(read(Some("m"), Some("tiny"), None), expected);
        assert!(read(Some("m"), Some("tiny"), Some("x")).is_err());
        for word in ["smollm2-135M", "smolm2-135m", "SmolLM2-135m"] {
            let error = read(None, Some(word), None).unwrap_err();
            assert!(error.contains("did you mean smollm2-135m?"), "{error}");
        }
        let error = read(None, Some("The"), Some("sea")).unwrap_err();
        assert!(error.contains("in quotes"), "{error}");
    }

    #[test]
    fn distances_are_levenshtein_s() {
        for (from, to, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("é", "e", 1)] {
            assert_eq!(
                (distance(from, to), distance(to, from)),
                (expected, expected)
            );
        }
    }
}
