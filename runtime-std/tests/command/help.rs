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

#[test]
fn shells_complete_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(brooklet(&["completions", shell]));
        for name in subcommands() {
            assert!(script.contains(&name), "{name} for {shell}");
        }
        assert!(script.contains("cache-type"), "{shell}");
    }
    failure(brooklet(&["completions", "dos"]), 2);
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
