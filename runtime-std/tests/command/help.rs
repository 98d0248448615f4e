//! Help, completions and manual pages.

use super::*;

/// The subcommands, as the program's help names them.
pub(crate) fn subcommands() -> Vec<String> {
    let help = text(brooklet(&["-h"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap().to_owned());
    let names: Vec<String> = names.collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

#[test]
fn help_fits_a_narrow_terminal() {
    let help = |arguments: &[&str]| text(command(arguments).env("COLUMNS", "40").output().unwrap());
    let mut texts = vec![help(&["-h"]), help(&["--help"])];
    for name in subcommands() {
        texts.extend([help(&[&name, "-h"]), help(&[&name, "--help"])]);
    }
    for text in texts {
        let wide: Vec<&str> = text
            .lines()
            .filter(|line| line.chars().count() > 40)
            .collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}

/// Completions of the words as the script for fish asks for them, less their explanations.
fn completions(words: &[&str], folder: &Path) -> Vec<String> {
    let mut command = command(&[&["--", "brooklet"], words].concat());
    command
        .env("BROOKLET_COMPLETE", "fish")
        .env("BROOKLET_MODELS", folder.join("store"))
        .current_dir(folder);
    let said = text(command.output().unwrap());
    let words = said.lines().map(|line| line.split('\t').next().unwrap());
    words.map(str::to_owned).collect()
}

#[test]
fn shells_complete_what_the_program_knows() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let stored = store.join("hf/owner/repository@main/weights.gguf");
    fs::create_dir_all(stored.parent().unwrap()).unwrap();
    for file in [
        stored,
        folder.path().join("mine.gguf"),
        folder.path().join("mine.txt"),
    ] {
        fs::write(file, "").unwrap();
    }
    let after = |words: &[&str]| completions(words, folder.path());
    let all = after(&[""]);
    for name in subcommands() {
        assert!(all.contains(&name), "{name}: {all:?}");
    }
    assert_eq!(after(&["run", "--cache-t"]), ["--cache-type"]);
    let known = ["smollm2-135m", "smollm2-360m"];
    for words in [
        &["run", "-m", "smollm2-"][..],
        &["run", "smollm2-"],
        &["chat", "smollm2-"],
        &["quantize", "smollm2-"],
        &["pull", "smollm2-"],
    ] {
        assert_eq!(after(words), known, "{words:?}");
    }
    let hub = "hf:owner/repository@main/weights.gguf";
    assert_eq!(after(&["inspect", "hf:"]), [hub]);
    // Of the store alone; and files, where one may be meant.
    assert_eq!(after(&["rm", "h"]), [hub]);
    assert!(after(&["rm", "smollm2-"]).is_empty());
    assert_eq!(after(&["inspect", "mi"]), ["mine.gguf"]);
}

#[test]
fn every_shell_has_a_script_that_asks_the_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(brooklet(&["completions", shell]));
        assert!(script.contains("BROOKLET_COMPLETE"), "{shell}: {script}");
    }
    failure(brooklet(&["completions", "dos"]), 2);
    // Without words to complete, the variable means nothing.
    let mut help = command(&["-h"]);
    let help = help.env("BROOKLET_COMPLETE", "bash").output().unwrap();
    assert!(text(help).contains("Commands:"));
}

/// bash itself completes with the script.
#[cfg(unix)]
#[test]
fn bash_completes_the_name_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, text(brooklet(&["completions", "bash"]))).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_brooklet")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c"])
        .arg(
            "source \"$0\"; COMP_WORDS=(brooklet run -m smollm2-13); COMP_CWORD=3; COMP_TYPE=9; \
             _clap_complete_brooklet brooklet smollm2-13 -m; printf '%s\\n' \"${COMPREPLY[@]}\"",
        )
        .arg(&script)
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .env("BROOKLET_MODELS", folder.path());
    let Ok(output) = bash.output() else {
        eprintln!("there is no bash: not tried");
        return;
    };
    assert_eq!(text(output).trim(), "smollm2-135m");
}

#[test]
fn manual_pages_are_written_for_every_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    text(brooklet(&["man", "--out", pages.to_str().unwrap()]));
    let own = text(brooklet(&["man"]));
    for name in subcommands() {
        assert!(
            own.contains(&format!("brooklet\\-{name}(1)")),
            "{name} in {own}"
        );
        let page = fs::read_to_string(pages.join(format!("brooklet-{name}.1"))).unwrap();
        assert!(
            page.contains(".SH OPTIONS") && page.contains(&format!("brooklet {name}")),
            "{page}"
        );
        assert_eq!(text(brooklet(&["man", &name])), page);
    }
    assert_eq!(fs::read_to_string(pages.join("brooklet.1")).unwrap(), own);
    assert!(failure(brooklet(&["man", "fly"]), 2).contains("fly"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(
        failure(brooklet(&["man", "--out", file.to_str().unwrap()]), 1).contains("cannot write")
    );
}

#[test]
fn help_is_stable() {
    for subcommand in subcommands() {
        insta::assert_snapshot!(
            format!("help-{subcommand}"),
            text(brooklet(&[&subcommand, "-h"]))
        );
    }
    insta::assert_snapshot!("help", text(brooklet(&["-h"])));
}
