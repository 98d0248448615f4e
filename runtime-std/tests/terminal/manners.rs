//! Screen and keys of a person.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::pty::{Terminal, has_terminals, shell_status};
use crate::talking::talking_model;

/// A chat with the tiny model on a terminal of `columns` columns.
fn chat(folder: &Path, rest: &[&str], columns: u16, set: impl FnOnce(&mut Command)) -> Terminal {
    let model = talking_model(folder);
    let start = ["chat", "-m", model.to_str().unwrap(), "--seed", "1"];
    Terminal::start(&[&start, rest].concat(), columns, set)
}

/// Leaves with Ctrl-D, and checks the end.
#[track_caller]
fn leave(mut terminal: Terminal) -> String {
    terminal.keys("\x04");
    let (ended, same) = terminal.end();
    assert_eq!(shell_status(ended), 0, "{:?}", terminal.text);
    assert!(same, "the terminal's modes");
    std::mem::take(&mut terminal.text)
}

/// The messages of the person, as `/save` wrote them.
fn said(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let messages = text.lines().filter_map(|line| line.strip_prefix("user: "));
    messages.map(str::to_owned).collect()
}

#[test]
fn lines_typed_or_pasted_at_once_are_all_said() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let mut terminal = chat(folder.path(), &["-n", "30"], 80, |_| {});
    terminal.expect("> ");
    // Without the marks of bracketed paste; what follows the first line comes while the model
    // answers. Return is Return then too.
    let save = format!("/save {}\r", file.display());
    terminal.keys(&format!("line one\rline two\rline three\r{save}"));
    terminal.expect("saved 6 messages");
    assert_eq!(said(&file), ["line one", "line two", "line three"]);
    // Marked as pasted it is one message.
    terminal.keys("\x1b[200~four\rfive\x1b[201~\r");
    terminal.keys(&format!("/save -f {}\r", file.display()));
    terminal.expect("saved 8 messages");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("user: four\nfive\n"), "{text}");
    leave(terminal);
}

#[test]
fn keys_are_not_echoed_into_an_answer() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = chat(folder.path(), &["-n", "-1"], 80, |_| {});
    terminal.expect("> ");
    terminal.keys("go on\r");
    // The line is complete, and the answer begins.
    terminal.expect("go on\x1b[?2004l");
    // The echo would be there at once, the line editor's at the next prompt.
    terminal.keys("QQQQQQQQ");
    let answer = terminal.expect("> ");
    assert!(!answer.contains("QQQQ"), "{answer:?}");
    terminal.expect("QQQQQQQQ");
    terminal.keys("\x15");
    leave(terminal);
}

#[test]
fn narrow_terminals_break_lines_between_words() {
    if !has_terminals() {
        return;
    }
    let arguments = [
        "run",
        "-m",
        "small",
        "Tom had a",
        "-n",
        "120",
        "--temp",
        "0",
    ];
    let plain = crate::program::program().args(arguments).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    for columns in [20, 41, 80] {
        let mut terminal = Terminal::start(&arguments, columns, |_| {});
        let (ended, _) = terminal.end();
        assert_eq!(shell_status(ended), 0, "{}", terminal.text);
        // The cursor is left at the beginning of a line.
        assert!(terminal.text.ends_with("\r\n"), "{:?}", terminal.text);
        let lines: Vec<&str> = terminal.text.split_terminator("\r\n").collect();
        let widest = lines.iter().map(|line| line.chars().count()).max();
        assert!(widest <= Some(columns.into()), "{lines:?}");
        let words: Vec<&str> = terminal.text.split_whitespace().collect();
        assert_eq!(words, plain.split_whitespace().collect::<Vec<_>>());
    }
}

#[test]
fn terminals_that_know_no_escapes_get_none() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for term in [Some("dumb"), Some(""), None] {
        let mut terminal = chat(folder.path(), &["-n", "9"], 40, |command| {
            command.env_remove("NO_COLOR");
            match term {
                Some(term) => command.env("TERM", term),
                None => command.env_remove("TERM"),
            };
        });
        terminal.expect("> ");
        terminal.keys("hello\n");
        terminal.expect("> ");
        terminal.keys("/stats\n");
        terminal.expect("> ");
        let text = leave(terminal);
        assert!(
            !text.contains('\x1b') && text.contains("tokens seen"),
            "{text:?}"
        );
    }
}

#[test]
fn a_terminal_may_change_its_width() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = chat(folder.path(), &["-n", "9"], 80, |_| {});
    terminal.expect("> ");
    terminal.keys("a line that is longer than twenty columns");
    terminal.expect("columns");
    terminal.resize(20);
    terminal.keys("\r");
    terminal.expect("> ");
    terminal.resize(3);
    terminal.keys("/stats\r");
    terminal.expect("> ");
    leave(terminal);
}

#[test]
fn messages_are_remembered_by_the_next_chat() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let file = state.join("brooklet/chat-history");
    let remembers = |command: &mut Command| {
        command.env("XDG_STATE_HOME", &state);
    };
    for (keys, rest) in [
        ("by the river\r", &[][..]),
        ("a secret\r", &["--no-history"]),
    ] {
        let rest = [&["-n", "2"], rest].concat();
        let mut terminal = chat(folder.path(), &rest, 80, remembers);
        terminal.expect("> ");
        terminal.keys(keys);
        terminal.expect("sets the limit");
        terminal.expect("> ");
        leave(terminal);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "by the river\n");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut terminal = chat(folder.path(), &["-n", "2"], 80, remembers);
    terminal.expect("> ");
    // The arrow up.
    terminal.keys("\x1b[A");
    terminal.expect("by the river");
    terminal.keys("\x15");
    leave(terminal);
}

#[test]
fn a_history_that_cannot_be_kept_is_told_of_once() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    fs::write(&taken, "").unwrap();
    let mut terminal = chat(folder.path(), &["-n", "2"], 80, |command| {
        command.env("XDG_STATE_HOME", &taken);
    });
    terminal.expect("not remembered: ");
    terminal.expect("> ");
    let text = leave(terminal);
    assert_eq!(text.matches("remembered").count(), 1, "{text}");
}

#[test]
fn commands_are_completed_and_do_what_they_say() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let home = folder.path().to_owned();
    let mut terminal = chat(folder.path(), &["-n", "4"], 80, |command| {
        command.env("HOME", home);
    });
    let mut command = |keys: &str, answer: &str| {
        terminal.expect("> ");
        terminal.keys(keys);
        terminal.expect(answer)
    };
    command("/und\t\r", "nothing to undo");
    command("/regen\t\r", "no message to answer");
    command("//etc is what?\r", "sets the limit");
    command("one more\r", "sets the limit");
    command("/save ~/first\r", "saved 4 messages");
    assert_eq!(said(&first), ["/etc is what?", "one more"]);
    command("/save ~/first\r", "exists: /save -f");
    command("/regenerate\r", "sets the limit");
    command("/undo\r", "last exchange forgotten");
    command("/save ~/second\r", "saved 2 messages");
    assert_eq!(said(&second), ["/etc is what?"]);
    command("/load ~/first\r", "loaded 4 messages");
    let begun = format!("/load {}\t\r", folder.path().join("fir").display());
    command(&begun, "loaded 4 messages");
    command("/save -f ~/second\r", "saved 4 messages");
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    command("/set temp 0\r", "temp is 0 from now on");
    command("/set tokens 3\r", "tokens is 3 from now on");
    command("/set top-p 2\r", "from 0 to 1, not");
    command("/set colour 2\r", "not a setting");
    command("/set\r", "temp            0");
    command("so\r", "(3 tokens;");
    command("/clear\r", "messages forgotten");
    command("/regenerate\r", "no message to answer");
    command("/load ~/nothing\r", "nothing");
    terminal.expect("> ");
    terminal.keys("/bye\r");
    let (ended, same) = terminal.end();
    assert!(shell_status(ended) == 0 && same);
}

/// A template is a text of a stranger.
#[test]
fn what_a_file_says_is_shown_and_not_obeyed() {
    use brooklet::chat::CHATML;
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let bytes = fs::read(&model).unwrap();
    let at = bytes
        .windows(CHATML.len())
        .position(|part| part == CHATML.as_bytes())
        .unwrap();
    let mut hostile = String::from("{{ raise_exception('red \x1b[31m\\nbrooklet: all is well') }}");
    hostile += &" ".repeat(CHATML.len() - hostile.len());
    let mut changed = bytes;
    changed[at..at + hostile.len()].copy_from_slice(hostile.as_bytes());
    fs::write(&model, changed).unwrap();
    let output = crate::program::program()
        .args(["chat", "-m", model.to_str().unwrap()])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("\\u{1b}[31m") && !errors.contains('\x1b'),
        "{errors:?}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors:?}");
}
