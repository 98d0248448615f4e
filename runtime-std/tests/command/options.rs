//! All options of all commands: each has an effect that can be seen, or the program says that it
//! has none, or refuses it.
//!
//! The options are read from the program's own help, so that a new one is missed here.

use super::*;
use crate::caption::{MODEL as SPEECH, sound};

/// The effect of an option on its command.
#[derive(Clone, Copy)]
enum Does {
    /// The output, the log or a file differs.
    Change,
    /// The program says that it has no effect.
    Nothing,
    /// The program refuses the combination.
    Refuse,
    /// It is seen elsewhere: in a test of that name.
    Elsewhere(&'static str),
}
use Does::{Change, Elsewhere, Nothing, Refuse};

/// A command, an option of it, and words that set it, after those that it needs beside.
type Row = (&'static str, &'static str, &'static [&'static str], Does);

/// Options of every command that plans a cache.
const CACHE: [(&str, &[&str], Does); 6] = [
    ("--window", &["--window", "9"], Change),
    ("--ctx-size", &["-c", "30"], Change),
    ("--cache-type", &["--cache-type", "f32"], Change),
    ("--cache", &["--cache", "x"], Refuse),
    ("--threads", &["-t", "3"], Change),
    ("--no-mmap", &["--no-mmap"], Change),
];

/// Options of every command that keeps tokens by a policy.
const POLICY: [(&str, &[&str], Does); 3] = [
    ("--policy", &["--policy", "window"], Change),
    ("--sinks", &["--sinks", "7"], Change),
    ("--sinks", &["--policy", "window", "--sinks", "7"], Nothing),
];

/// Options of every command that samples.
const SAMPLING: [(&str, &[&str], Does); 20] = [
    ("--typical-p", &["--typical-p", "0.1"], Change),
    (
        "--typical-p",
        &["--temp", "0", "--typical-p", "0.1"],
        Nothing,
    ),
    ("--temp", &["--temp", "2"], Change),
    ("--temp", &["--temperature", "2"], Change),
    ("--top-k", &["--top-k", "1"], Change),
    ("--top-k", &["--temp", "0", "--top-k", "1"], Nothing),
    ("--top-p", &["--top-p", "0"], Change),
    ("--top-p", &["--temp", "0", "--top-p", "0"], Nothing),
    ("--min-p", &["--min-p", "1"], Change),
    ("--min-p", &["--temp", "0", "--min-p", "1"], Nothing),
    ("--repeat-penalty", &["--repeat-penalty", "9"], Change),
    ("--presence-penalty", &["--presence-penalty", "9"], Change),
    ("--frequency-penalty", &["--frequency-penalty", "9"], Change),
    (
        "--repeat-last-n",
        &["--repeat-penalty", "9", "--repeat-last-n", "2"],
        Change,
    ),
    ("--repeat-last-n", &["--repeat-last-n", "2"], Nothing),
    (
        "--repeat-penalty",
        &["--repeat-last-n", "0", "--repeat-penalty", "9"],
        Nothing,
    ),
    ("--logit-bias", &["--logit-bias", "40+99"], Change),
    ("--logit-bias", &["--logit-bias", "999999+9"], Refuse),
    ("--seed", &["-s", "8"], Change),
    ("--seed", &["--temp", "0", "-s", "8"], Nothing),
];

const ROWS: &[Row] = &[
    ("run", "--model", &["-m", SPEECH], Change),
    ("run", "--prompt", &["-p", "The hills"], Refuse),
    ("run", "--file", &["-f", "/dev/null"], Refuse),
    ("run", "--special", &["--special"], Change),
    ("run", "--tokens", &["-n", "3"], Change),
    ("run", "--tokens", &["--n-predict", "3"], Change),
    ("run", "--ram", &["--ram", "150KiB"], Change),
    ("run", "--skip-weights", &["--skip-weights", "2"], Change),
    (
        "run",
        "--stop",
        &["--logit-bias", "68+999", "--stop", "A"],
        Change,
    ),
    (
        "run",
        "--ignore-eos",
        &["--logit-bias", "2+999", "--ignore-eos"],
        Change,
    ),
    ("run", "--echo", &["--echo"], Change),
    ("run", "--stats", &["--stats"], Change),
    ("run", "--json", &["--json"], Change),
    ("chat", "--model", &["-m", SPEECH], Change),
    ("chat", "--prompt", &["-p", "The hills"], Change),
    (
        "chat",
        "--chat-template",
        &["--chat-template", "vicuna"],
        Change,
    ),
    (
        "chat",
        "--chat-template",
        &["--chat-template", "fly"],
        Refuse,
    ),
    ("chat", "--system", &["--system", "Be short."], Change),
    ("chat", "--no-thinking", &["--no-thinking"], Nothing),
    ("chat", "--ram", &["--ram", "150KiB"], Change),
    ("chat", "--skip-weights", &["--skip-weights", "2"], Change),
    ("chat", "--tokens", &["-n", "3"], Change),
    (
        "chat",
        "--stop",
        &["--logit-bias", "68+999", "--stop", "A"],
        Change,
    ),
    ("chat", "--ctx-dump", &["--ctx-dump", "{out}"], Change),
    ("chat", "--json", &["--json"], Change),
    ("chat", "--force", &["--force"], Refuse),
    ("chat", "--force", &["--force"], Elsewhere("outputs")),
    (
        "chat",
        "--no-history",
        &["--no-history"],
        Elsewhere("terminal::manners"),
    ),
    ("ppl", "--model", &["-m", SPEECH], Change),
    ("ppl", "--force", &["--force"], Elsewhere("outputs")),
    ("ppl", "--file", &["-f", "/dev/null"], Change),
    ("ppl", "--ids", &["--ids", "/dev/null"], Refuse),
    ("ppl", "--special", &["--special"], Change),
    ("ppl", "--ram", &["--ram", "150KiB"], Change),
    ("ppl", "--skip-weights", &["--skip-weights", "2"], Change),
    (
        "ppl",
        "--window",
        &["--policy", "dense", "--window", "9", "--count", "10"],
        Refuse,
    ),
    ("ppl", "--start", &["--start", "2"], Change),
    ("ppl", "--count", &["--count", "5"], Change),
    ("ppl", "--stride", &["--stride", "3"], Change),
    ("ppl", "--no-bos", &["--no-bos"], Change),
    ("ppl", "--dump", &["--dump", "{out}"], Change),
    ("ppl", "--scores", &["--scores", "{out}"], Change),
    ("ppl", "--sink-mass", &["--sink-mass"], Change),
    (
        "ppl",
        "--sink-mass",
        &["--sink-mass", "--stride", "2"],
        Refuse,
    ),
    ("ppl", "--attention", &["--attention", "{out}"], Change),
    ("ppl", "--json", &["--json"], Change),
    ("tokenize", "--model", &["-m", SPEECH], Change),
    ("tokenize", "--no-mmap", &["--no-mmap"], Change),
    ("tokenize", "--prompt", &["-p", "The hills"], Refuse),
    ("tokenize", "--file", &["-f", "/dev/null"], Refuse),
    ("tokenize", "--special", &["--special"], Change),
    ("tokenize", "--ids", &["--ids"], Change),
    ("tokenize", "--ids", &["--ids", "--json"], Refuse),
    ("tokenize", "--no-bos", &["--no-bos"], Change),
    ("tokenize", "--json", &["--json"], Change),
    ("detokenize", "--model", &["-m", SPEECH], Change),
    ("detokenize", "--no-mmap", &["--no-mmap"], Change),
    ("detokenize", "--file", &["-f", "/dev/null"], Refuse),
    ("detokenize", "--special", &["--special"], Change),
    ("plan", "--model", &["-m", SPEECH], Change),
    ("plan", "--ram", &["--ram", "150KiB"], Change),
    ("plan", "--skip-weights", &["--skip-weights", "2"], Nothing),
    ("plan", "--json", &["--json"], Change),
    ("plan", "--bandwidth", &["--bandwidth", "17GB"], Change),
    ("bench", "--model", &["-m", SPEECH], Change),
    (
        "bench",
        "--skip-weights",
        &["--skip-weights", "2"],
        Elsewhere("run --skip-weights, in this table"),
    ),
    // Named in the help of --window alone.
    ("bench", "--ram", &["--ram", "150KiB"], Refuse),
    ("bench", "--prompt", &["-p", "3"], Change),
    ("bench", "--tokens", &["-n", "3"], Change),
    ("bench", "--depth", &["-d", "3"], Change),
    ("bench", "--runs", &["--json", "-r", "2"], Change),
    ("bench", "--json", &["--json"], Change),
    ("inspect", "--tensors", &["--tensors"], Change),
    ("inspect", "--json", &["--json"], Change),
    ("inspect", "--no-mmap", &["--no-mmap"], Change),
    ("quantize", "--no-mmap", &["--no-mmap"], Change),
    ("slim", "--no-mmap", &["--no-mmap"], Change),
    ("quantize", "--force", &["--force"], Elsewhere("files")),
    (
        "quantize",
        "--threads",
        &["-t", "1"],
        Elsewhere("text::the_same_text_whatever_the_threads_the_map_and_the_instruction_set"),
    ),
    ("quantize", "--json", &["--json"], Change),
    ("convert", "--force", &["--force"], Elsewhere("outputs")),
    ("convert", "--json", &["--json"], Change),
    ("slim", "--output", &["-o", "{out}2"], Change),
    ("slim", "--calib", &["--calib", "{text}"], Change),
    ("slim", "--calib-tokens", &["--calib-tokens", "20"], Change),
    (
        "slim",
        "--bound",
        &["--bound", "9"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    (
        "slim",
        "--bound",
        &["--layout", "k", "--bound", "9"],
        Nothing,
    ),
    (
        "slim",
        "--layout",
        &["--layout", "k"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    (
        "slim",
        "--cache-type",
        &["--cache-type", "f16"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    (
        "slim",
        "--f32",
        &["--f32"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    (
        "slim",
        "--drop-v",
        &["--bound", "9", "--drop-v"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    ("slim", "--without", &["--without", "centring"], Change),
    (
        "slim",
        "--report",
        &["--report", "{out}3"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    ("slim", "--force", &["--force"], Elsewhere("files")),
    (
        "slim",
        "--threads",
        &["-t", "1"],
        Elsewhere("text::the_same_text_whatever_the_threads_the_map_and_the_instruction_set"),
    ),
    (
        "slim",
        "--json",
        &["--json"],
        Elsewhere("slim::a_slim_copy_predicts_what_the_original_does"),
    ),
    ("caption", "--model", &["-m", "{tiny}"], Change),
    ("caption", "--no-mmap", &["--no-mmap"], Change),
    ("caption", "--output", &["-o", "{out}"], Change),
    (
        "caption",
        "--beside",
        &["--beside"],
        Elsewhere("caption::captions_go_to_files_where_that_is_asked_for"),
    ),
    (
        "caption",
        "--force",
        &["--force"],
        Elsewhere("caption::captions_go_to_files_where_that_is_asked_for"),
    ),
    (
        "caption",
        "--carry",
        &["--carry"],
        Elsewhere("caption::an_unsure_text_is_written_again"),
    ),
    (
        "caption",
        "--once",
        &["--once"],
        Elsewhere("caption::an_unsure_text_is_written_again"),
    ),
    ("caption", "--raw", &["--raw", "s16le"], Change),
    ("caption", "--language", &["--language", "xx"], Change),
    ("caption", "--task", &["--task", "translate"], Change),
    ("caption", "--format", &["--format", "vtt"], Change),
    (
        "caption",
        "--prompt",
        &["--prompt", "one two three"],
        Elsewhere("core/tests/speech.rs: the random model's words do not show it"),
    ),
    ("caption", "--ram", &["--ram", "1KiB"], Change),
    (
        "caption",
        "--cross-cache",
        &["--stats", "--cross-cache", "e"],
        Change,
    ),
    ("caption", "--cache", &["--cache", "x"], Change),
    (
        "caption",
        "--cache-type",
        &["--stats", "--cache-type", "q8_0"],
        Change,
    ),
    ("caption", "--threads", &["--stats", "-t", "3"], Change),
    ("caption", "--stats", &["--stats"], Change),
    (
        "pull",
        "--accept-terms",
        &["--accept-terms"],
        Elsewhere("hub"),
    ),
    ("pull", "--json", &["--json"], Elsewhere("hub")),
    ("models", "--rm", &["--rm", "smollm2-135m"], Change),
    ("models", "--recommend", &["--recommend"], Change),
    (
        "models",
        "--recommend",
        &["--recommend", "--rm", "x"],
        Refuse,
    ),
    ("models", "--json", &["--json"], Change),
    ("man", "--out", &["--out", "{out}"], Change),
    ("man", "--force", &["--force"], Elsewhere("outputs")),
];

/// A command that works, without its optional options.
pub(crate) fn base(name: &str) -> &'static [&'static str] {
    match name {
        "run" => &[
            "run",
            "-m",
            "{tiny}",
            "The <s> sea",
            "-n",
            "24",
            "--seed",
            "7",
        ],
        "chat" => &[
            "chat",
            "-m",
            "{tiny}",
            "--chat-template",
            "chatml",
            "-p",
            "Hello",
            "-n",
            "24",
            "--seed",
            "7",
        ],
        "ppl" => &["ppl", "-m", "{tiny}", "-f", "{text}", "--count", "40"],
        "tokenize" => &["tokenize", "-m", "{tiny}", "The <s> sea"],
        "detokenize" => &["detokenize", "-m", "{tiny}", "1", "65", "66"],
        "plan" => &["plan", "-m", "{tiny}"],
        "bench" => &["bench", "-m", "{tiny}", "-p", "4", "-n", "2", "-r", "1"],
        "inspect" => &["inspect", "{tiny}"],
        "quantize" => &["quantize", "{tiny}", "{out}", "Q8_0"],
        "convert" => &["convert", "{package}", "{out}"],
        "slim" => &[
            "slim",
            "{mha}",
            "-o",
            "{out}",
            "--calib-tokens",
            "64",
            "--bound",
            "0.02",
        ],
        "caption" => &["caption", "-m", SPEECH, "{sound}"],
        "pull" => &["pull", "no-such-model"],
        "models" => &["models"],
        "rm" => &["rm", "no-such-model"],
        "completions" => &["completions", "bash"],
        "man" => &["man"],
        name => panic!("say how {name} is called"),
    }
}

/// Everything of a run that a person, a log or a disk shows, without what no two runs share.
pub(crate) fn seen(words: &[&str]) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text_of = "The sea was calm. <s> A small boat went out to the sea.\n".repeat(4);
    fs::write(path("text"), text_of).unwrap();
    if words.contains(&"{package}") {
        fs::create_dir(path("package")).unwrap();
        other_model(path("package").as_ref());
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| {
            word.replace("{tiny}", tiny().to_str().unwrap())
                .replace("{mha}", crate::slim::MHA)
                .replace("{sound}", &sound("tone.flac"))
                .replace("{text}", &path("text"))
                .replace("{package}", &path("package"))
                .replace("{out}", &path("out"))
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = command(&[&words[..], &["-vv"]].concat())
        .env("BROOKLET_MODELS", folder.path().join("models"))
        .output()
        .unwrap();
    let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
    all += &String::from_utf8_lossy(&output.stderr);
    assert!(!all.contains("panicked"), "{words:?}: {all}");
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap())
        .collect();
    files.sort_by_key(|file| file.file_name());
    for file in files {
        let bytes = fs::read(file.path()).unwrap_or_default();
        let sum = bytes
            .iter()
            .fold(7u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
        all += &format!("{:?} {} {sum}\n", file.file_name(), bytes.len());
    }
    // Times and memory differ from run to run, and so does the folder.
    let all = all.replace(folder.path().to_str().unwrap(), "");
    let varies = [" KiB anonymous", " GB/s", " GHz", "memory "];
    let lines = all
        .lines()
        .filter(|line| !varies.iter().any(|words| line.contains(words)));
    let lines = lines.map(|line| {
        let timed = ["tokens/s", "tps", "seconds", " s"];
        if line.contains("INFO") || !timed.iter().any(|word| line.contains(word)) {
            return line.to_owned();
        }
        // What is no fraction and no memory stays.
        let varies = |word: &&str| [".", "kib", "kb"].iter().any(|mark| word.contains(mark));
        let words = line.split([' ', ',']);
        // Wide numbers leave fewer blanks before them.
        let stays = |word: &&str| !word.is_empty() && !varies(word);
        words.filter(stays).collect::<Vec<_>>().join(" ")
    });
    (lines.collect::<Vec<_>>().join("\n"), output.status.code())
}

/// The words of a base and a row; what the row sets, the base does not.
pub(crate) fn joined<'w>(base: &[&'w str], row: &[&'w str]) -> Vec<&'w str> {
    let sets = |word: &str| {
        row.iter()
            .any(|other| *other == word && word.starts_with('-'))
            || (word == "--seed" && row.contains(&"-s"))
            || (word == "-n" && row.contains(&"--n-predict"))
    };
    let mut words = Vec::new();
    let mut base = base.iter();
    while let Some(word) = base.next() {
        if sets(word) {
            base.next();
        } else {
            words.push(*word);
        }
    }
    [&words[..], row].concat()
}

/// The long names of the options in a command's help.
fn options_of(name: &str) -> Vec<String> {
    let help = text(brooklet(&[name, "-h"]));
    let names = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line
            .split_once(", ")
            .filter(|(short, _)| short.len() == 2)
            .map_or(line, |(_, long)| long);
        let name = line.strip_prefix("--")?.split([' ', ',']).next()?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        name.chars().all(is_name).then(|| format!("--{name}"))
    });
    names
        .filter(|name| name != "--help" && name != "--verbose")
        .collect()
}

fn rows() -> Vec<Row> {
    let mut rows = ROWS.to_vec();
    for name in ["run", "chat", "ppl", "plan", "bench"] {
        rows.extend(
            CACHE
                .iter()
                .map(|&(option, words, does)| (name, option, words, does)),
        );
        if name != "chat" {
            rows.extend(
                POLICY
                    .iter()
                    .map(|&(option, words, does)| (name, option, words, does)),
            );
        }
    }
    for name in ["run", "chat"] {
        rows.extend(
            SAMPLING
                .iter()
                .map(|&(option, words, does)| (name, option, words, does)),
        );
    }
    rows
}

#[test]
fn every_option_has_an_effect_or_is_refused_or_the_program_says_so() {
    let rows = rows();
    let mut wrong = Vec::new();
    for name in help::subcommands() {
        let once = seen(base(&name));
        assert_eq!(once, seen(base(&name)), "{name} is the same each time");
        for option in options_of(&name) {
            let of_option = rows.iter().filter(|row| row.0 == name && row.1 == option);
            if of_option.clone().count() == 0 {
                wrong.push(format!("say what {name} {option} does"));
            }
            for (_, _, words, does) in of_option {
                if let Elsewhere(place) = does {
                    println!("{name} {option}: see {place}");
                    continue;
                }
                let (text, code) = seen(&joined(base(&name), words));
                let says = text.contains(&format!("{option} has no effect"));
                // The same without the option, which is the last.
                let last = words
                    .iter()
                    .rposition(|word| word.starts_with('-'))
                    .unwrap();
                let plain = seen(&joined(base(&name), &words[..last]));
                let right = match does {
                    Change => (&text, code) != (&plain.0, plain.1) && !says && code != Some(2),
                    Nothing => says && code == Some(0),
                    // A cache that the model cannot have is refused by its plan.
                    Refuse => matches!(code, Some(1 | 2)),
                    Elsewhere(_) => true,
                };
                if !right {
                    wrong.push(format!("{name} {words:?}: status {code:?}\n{text}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
