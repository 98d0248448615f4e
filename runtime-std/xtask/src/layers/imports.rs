//! The imports among the first-level modules of a crate, read from its tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Import;
use crate::Error;

/// The first-level modules of a crate, and their imports.
pub struct Found {
    pub modules: Vec<String>,
    pub imports: Vec<Import>,
}

/// Reads `lib.rs` in `source` under `root`, and every file of its modules.
///
/// # Errors
/// If a file of a module is missing or is not Rust.
pub fn of_crate(root: &Path, source: &Path) -> Result<Found, Error> {
    let mut reader = Reader {
        root,
        modules: Vec::new(),
        mentions: Vec::new(),
        exports: BTreeMap::new(),
    };
    reader.file(&source.join("lib.rs"), source, &[])?;
    let modules = reader.modules;
    let imports = reader
        .mentions
        .into_iter()
        .filter_map(|mention| {
            let to = if modules.contains(&mention.name) {
                mention.name
            } else {
                match reader.exports.get(&mention.name) {
                    Some(module) => module.clone(),
                    None => format!("lib.rs: {}", mention.name),
                }
            };
            (to != mention.from).then_some(Import {
                from: mention.from,
                to,
                file: mention.file,
                line: mention.line,
            })
        })
        .collect();
    Ok(Found { modules, imports })
}

/// A name under the crate's root that a module mentions.
struct Mention {
    from: String,
    name: String,
    file: PathBuf,
    line: usize,
}

struct Reader<'a> {
    root: &'a Path,
    modules: Vec<String>,
    mentions: Vec<Mention>,
    /// Names that `lib.rs` re-exports and macros that a module exports: each with its first-level
    /// module.
    exports: BTreeMap<String, String>,
}

/// Place of the tokens being read.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    /// The folder of the files of this module's children.
    folder: &'a Path,
    /// The module's path from the root.
    path: &'a [String],
}

impl Reader<'_> {
    fn file(&mut self, file: &Path, folder: &Path, path: &[String]) -> Result<(), Error> {
        let text = fs::read_to_string(self.root.join(file))
            .map_err(|e| format!("{}: {e}", file.display()))?;
        let tokens: TokenStream = text
            .parse()
            .map_err(|e| format!("{}: {e}", file.display()))?;
        self.tokens(tokens, Place { file, folder, path })
    }

    fn tokens(&mut self, tokens: TokenStream, place: Place<'_>) -> Result<(), Error> {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut exported = false;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.get(at + 1) {
                        let text = attribute.stream().to_string().replace(' ', "");
                        at += 2;
                        if text.starts_with("cfg(test") || text.starts_with("cfg(all(test") {
                            at = after_item(&tokens, at);
                        }
                        exported |= text == "macro_export";
                        continue;
                    }
                }
                TokenTree::Ident(word) if word == "mod" => at = self.module(&tokens, at, place)?,
                TokenTree::Ident(word) if word == "use" => {
                    let end = (at..tokens.len())
                        .find(|&i| is(&tokens[i], ';'))
                        .unwrap_or(tokens.len());
                    self.tree(&tokens[at + 1..end], &[], place);
                    at = end;
                }
                TokenTree::Ident(word) if word == "crate" || word == "super" => {
                    let (path, next) = segments(&tokens, at);
                    self.mention(&path, word.span().start().line, place);
                    at = next;
                    continue;
                }
                TokenTree::Ident(word) if word == "macro_rules" && exported => {
                    if let (Some(TokenTree::Ident(name)), Some(module)) =
                        (tokens.get(at + 2), place.path.first())
                    {
                        self.exports.insert(name.to_string(), module.clone());
                    }
                    exported = false;
                }
                TokenTree::Group(group) => self.tokens(group.stream(), place)?,
                _ => {}
            }
            at += 1;
        }
        Ok(())
    }

    /// Reads the module whose keyword `mod` stands at `at`; returns the place of its last token.
    fn module(
        &mut self,
        tokens: &[TokenTree],
        at: usize,
        place: Place<'_>,
    ) -> Result<usize, Error> {
        let (Some(TokenTree::Ident(name)), Some(after)) = (tokens.get(at + 1), tokens.get(at + 2))
        else {
            return Ok(at);
        };
        let name = name.to_string();
        let path: Vec<String> = place.path.iter().cloned().chain([name.clone()]).collect();
        let folder = place.folder.join(&name);
        match after {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => {
                self.declare(&path);
                let place = Place {
                    folder: &folder,
                    path: &path,
                    ..place
                };
                self.tokens(body.stream(), place)?;
            }
            after if is(after, ';') => {
                self.declare(&path);
                let own = place.folder.join(format!("{name}.rs"));
                let file = if self.root.join(&own).is_file() {
                    own
                } else {
                    folder.join("mod.rs")
                };
                self.file(&file, &folder, &path)?;
            }
            _ => return Ok(at),
        }
        Ok(at + 2)
    }

    fn declare(&mut self, path: &[String]) {
        if let [name] = path {
            self.modules.push(name.clone());
        }
    }

    /// The leaves of a tree of `use`, whose path so far is `before`.
    fn tree(&mut self, tokens: &[TokenTree], before: &[(String, usize)], place: Place<'_>) {
        let mut path = before.to_vec();
        let mut alias = None;
        for (i, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    alias = tokens.get(i + 1).map(ToString::to_string);
                    break;
                }
                TokenTree::Ident(word) => path.push((word.to_string(), word.span().start().line)),
                TokenTree::Punct(mark) if mark.as_char() == '*' => {
                    path.push(("*".to_owned(), mark.span().start().line));
                }
                TokenTree::Group(group) => {
                    for branch in branches(group) {
                        self.tree(&branch, &path, place);
                    }
                    return;
                }
                _ => {}
            }
        }
        let names: Vec<String> = path.iter().map(|(name, _)| name.clone()).collect();
        let Some((last, line)) = path.last() else {
            return;
        };
        if place.path.is_empty() {
            let names = match &names[..] {
                [first, rest @ ..] if first == "crate" || first == "self" => rest,
                names => names,
            };
            if let [module, .., _] = names {
                self.exports
                    .insert(alias.unwrap_or_else(|| last.clone()), module.clone());
            }
        } else {
            self.mention(&names, *line, place);
        }
    }

    /// Notes what `path` mentions under the root, if it starts with `crate` or leaves its module by
    /// `super`.
    fn mention(&mut self, path: &[String], line: usize, place: Place<'_>) {
        let Some(from) = place.path.first() else {
            return;
        };
        let mut absolute = place.path.to_vec();
        for name in path {
            match name.as_str() {
                "crate" => absolute.clear(),
                "super" => _ = absolute.pop(),
                "self" => {}
                _ if path[0] == "crate" || path[0] == "super" => absolute.push(name.clone()),
                _ => return,
            }
        }
        if let Some(name) = absolute.first().filter(|name| *name != from) {
            self.mentions.push(Mention {
                from: from.clone(),
                name: name.clone(),
                file: place.file.to_owned(),
                line,
            });
        }
    }
}

fn is(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// The names of the path that starts at `at`, and the place after it.
fn segments(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        path.push(word.to_string());
        at += 1;
        match tokens.get(at..at + 2) {
            Some([first, second]) if is(first, ':') && is(second, ':') => at += 2,
            _ => break,
        }
    }
    (path, at)
}

/// The parts of a group that commas separate.
fn branches(group: &Group) -> Vec<Vec<TokenTree>> {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let parts = tokens.split(|token| is(token, ','));
    parts
        .filter(|part| !part.is_empty())
        .map(<[TokenTree]>::to_vec)
        .collect()
}

/// The place after the item (or field) that starts at `at`.
fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is(token, ';') || is(token, ','),
    };
    tokens[at..]
        .iter()
        .position(ends)
        .map_or(tokens.len(), |length| at + length + 1)
}
