//! Sections of help and manual pages beside the options: examples, variables, files and exit codes.
//! One source for both.

use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};

/// A part after the options.
struct Section {
    title: &'static str,
    /// Terms, and what they mean.
    entries: Vec<(&'static str, &'static str)>,
}

const ENVIRONMENT: &[(&str, &str)] = &[
    ("BROOKLET_MODELS", "The folder of pulled models."),
    (
        "BROOKLET_ISA",
        "The instruction set to compute with, instead of the best there is. A wrong name lists them.",
    ),
    (
        "HF_ENDPOINT",
        "The address of the model hub, instead of https://huggingface.co.",
    ),
    (
        "HF_TOKEN",
        "A token of the model hub, for private repositories and those that ask for agreement; sent to the hub alone.",
    ),
    ("NO_COLOR", "No colours, if it is set and not empty."),
];

const FILES: &[(&str, &str)] = &[(
    "~/.cache/brooklet",
    "The folder of pulled models, unless BROOKLET_MODELS names one, or XDG_CACHE_HOME another cache.",
)];

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done; also if the reader of the output has gone."),
    ("1", "Failed: one sentence on standard error says why."),
    ("2", "The command line is wrong."),
    (
        "129, 130, 143",
        "Ended by a hang-up, by Ctrl-C, or by a request to terminate.",
    ),
];

/// The choice of a token, for commands that sample.
const SAMPLING: &[(&str, &str)] = &[(
    "Order",
    "Biases, presence and frequency penalties, typical-p, the repeat penalty, top-k, top-p and min-p (by the probabilities before temperature), temperature.",
)];

/// Examples of a subcommand.
fn examples(command: &str) -> &'static [(&'static str, &'static str)] {
    match command {
        "brooklet" => &[
            (
                "brooklet run",
                "Stories for ever, by the model in the program.",
            ),
            (
                "brooklet chat",
                "A conversation with a small assistant, which is fetched first.",
            ),
            ("brooklet models", "The models that can be fetched by name."),
        ],
        "chat" => &[
            ("brooklet chat", "Talk with smollm2-135m."),
            (
                "brooklet chat qwen3-0.6b --ram 256MiB",
                "Talk with another model, in that much memory.",
            ),
            (
                "brooklet chat -m base.gguf --chat-template chatml",
                "Give messages to a model whose file has no template.",
            ),
        ],
        "run" => &[
            (
                "brooklet run",
                "Stories for ever, by the model in the program.",
            ),
            (
                "brooklet run smollm2-135m \"The sea was\" -n 100",
                "Continue a text by 100 tokens.",
            ),
            (
                "brooklet run -m coder.gguf --special \"<|fim_prefix|>def f(\"",
                "Let control tokens in the text be control tokens.",
            ),
            (
                "brooklet run -m model.gguf -f book.txt -n -1 --ram 64MiB",
                "Continue a book for ever, in that much memory.",
            ),
        ],
        "caption" => &[(
            "brooklet caption -m whisper-tiny.gguf talk.mp3 --format srt",
            "Subtitles of a sound.",
        )],
        "ppl" => &[(
            "brooklet ppl -m model.gguf -f book.txt --window 512",
            "The perplexity of a text with a window of 512 tokens.",
        )],
        "tokenize" => &[(
            "brooklet tokenize -m model.gguf --ids \"The sea\"",
            "The ids of a text on one line.",
        )],
        "detokenize" => &[(
            "brooklet detokenize -m model.gguf 504 3304",
            "The text of ids.",
        )],
        "plan" => &[(
            "brooklet plan -m smollm2-135m --ram 32MiB",
            "What 32 MiB are used for.",
        )],
        "inspect" => &[(
            "brooklet inspect model.gguf",
            "What a file holds, and if it runs.",
        )],
        "quantize" => &[(
            "brooklet quantize model-f16.gguf model-q4.gguf Q4_K_M",
            "A copy with weights of 4 to 6 bits.",
        )],
        "slim" => &[(
            "brooklet slim model.gguf -o slim.gguf --calib book.txt",
            "A copy that caches keys alone where the text allows it.",
        )],
        "bench" => &[(
            "brooklet bench -m model.gguf -t 2",
            "Speed with two threads.",
        )],
        "pull" => &[(
            "brooklet pull smollm2-135m",
            "Fetch a model now, not at its first use.",
        )],
        "models" => &[
            ("brooklet models", "All models that have a name."),
            (
                "brooklet models --recommend",
                "The best that fits this machine.",
            ),
        ],
        "rm" => &[("brooklet rm smollm2-135m", "Remove a pulled model.")],
        "completions" => &[(
            "brooklet completions bash > brooklet.bash",
            "Completions for bash, to be sourced by ~/.bashrc.",
        )],
        "man" => &[(
            "brooklet man --out ~/.local/share/man/man1",
            "All manual pages.",
        )],
        _ => &[],
    }
}

/// The sections of a subcommand, or of the program.
fn sections(command: &str) -> Vec<Section> {
    let section = |title, entries: &[(&'static str, &'static str)]| Section {
        title,
        entries: entries.to_vec(),
    };
    let samples = matches!(command, "run" | "chat");
    let all = [
        section("Sampling", if samples { SAMPLING } else { &[] }),
        section("Examples", examples(command)),
        section("Environment", ENVIRONMENT),
        section("Files", FILES),
        section("Exit status", EXIT_STATUS),
    ];
    all.into_iter()
        .filter(|section| !section.entries.is_empty())
        .collect()
}

/// Adds the sections to the long help.
pub fn with_help(command: Command) -> Command {
    let mut text = String::new();
    for Section { title, entries } in sections(command.get_name()) {
        text += &format!("{title}:\n");
        for (term, meaning) in entries {
            text += &format!("  {term}\n          {meaning}\n");
        }
        text.push('\n');
    }
    command.after_long_help(text.trim_end().to_owned())
}

/// The sections as a part of a manual page.
pub fn manual(command: &str) -> Roff {
    let mut roff = Roff::new();
    for Section { title, entries } in sections(command) {
        roff.control("SH", [title.to_uppercase().as_str()]);
        for (term, meaning) in entries {
            roff.control("TP", []);
            roff.text([bold(term)]);
            roff.text([roman(meaning)]);
        }
    }
    roff
}
