//! Walk through a chat template of any text, the body of the fuzz target and of the replay of its
//! corpus.

use crate::template::Template;

/// Compiles a template and renders every part of a conversation with it.
///
/// # Panics
/// If a promise is broken: an error does not begin as all do, the words of a part are not at their
/// stated place, or a part has 8 MiB or more.
pub fn walk(bytes: &[u8]) -> bool {
    let source = String::from_utf8_lossy(bytes);
    let template = match Template::new(&source, "<s>", "</s>") {
        Ok(template) => template,
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("the model's chat template"), "{error}");
            return false;
        }
    };
    for system in [None, Some("Be short.")] {
        let words = "{{ 1 }} <s> 'no'";
        for first in [true, false] {
            if let Ok(framed) = template.question(system, first, words) {
                assert_eq!(&framed.text[framed.words], words);
            }
        }
        if let Ok(prefix) = template.prefix(system) {
            assert_eq!(&prefix.text[prefix.words], system.unwrap_or_default());
        }
        for part in [template.open(system), template.close(system)] {
            assert!(part.is_err() || part.is_ok_and(|text| text.len() < 8 << 20));
        }
    }
    true
}
