//! The command line: positional words, `--flags` and options with one value.

use crate::Result;
use std::collections::{HashMap, HashSet};
use std::str::FromStr;

const FLAGS: [&str; 6] = [
    "--bos",
    "--special",
    "--serve",
    "--json",
    "--verbose",
    "--no-mmap",
];
const OPTIONS: [&str; 12] = [
    "-n",
    "-p",
    "-r",
    "-t",
    "-c",
    "--start",
    "--count",
    "--cache-type",
    "--flash",
    "--pre",
    "--sinks",
    "--window",
];

/// Words of one subcommand, sorted by kind.
pub struct Args {
    words: Vec<String>,
    flags: HashSet<String>,
    options: HashMap<String, String>,
}

impl Args {
    /// Sorts the words after the subcommand; an unknown option is an error.
    pub fn parse(raw: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Args {
            words: Vec::new(),
            flags: HashSet::new(),
            options: HashMap::new(),
        };
        let mut raw = raw;
        while let Some(word) = raw.next() {
            if FLAGS.contains(&word.as_str()) {
                args.flags.insert(word);
            } else if OPTIONS.contains(&word.as_str()) {
                let value = raw.next().ok_or_else(|| format!("{word} needs a value"))?;
                args.options.insert(word, value);
            } else if word.starts_with('-') {
                return Err(format!("unknown option {word}").into());
            } else {
                args.words.push(word);
            }
        }
        Ok(args)
    }

    /// The `index`-th positional word, called `name` in the error.
    pub fn word(&self, index: usize, name: &str) -> Result<&str> {
        self.words
            .get(index)
            .map(String::as_str)
            .ok_or_else(|| format!("{name} is missing").into())
    }

    /// The positional words from `index` on; at least one, called `name` in the error.
    pub fn rest(&self, index: usize, name: &str) -> Result<&[String]> {
        self.word(index, name)?;
        Ok(&self.words[index..])
    }

    /// Returns true if a flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// The text of an option, if given.
    pub fn text(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }

    /// The value of an option, if given.
    pub fn value<T: FromStr>(&self, option: &str) -> Result<Option<T>> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| format!("{option} {text}: not a number").into())
        };
        self.options.get(option).map(parse).transpose()
    }
}
