//! The table against the command line: every option in it exists, and every rule can hold.

use super::super::command_line;
use super::*;

#[test]
fn rules_name_options_that_their_commands_have() {
    let command = command_line();
    for rule in RULES {
        for name in rule.commands {
            let subcommand = command.find_subcommand(name).unwrap();
            for option in rule.options {
                let mut arguments = subcommand.get_arguments();
                assert!(
                    arguments.any(|argument| argument.get_long() == Some(option)
                        && argument.get_id().as_str() == option.replace('-', "_")),
                    "{name} --{option}"
                );
            }
        }
    }
}

#[test]
fn what_has_no_effect_is_found_and_nothing_else() {
    let ignored = |line: &str| -> Vec<String> {
        let words = line.split(' ');
        let matches = command_line().try_get_matches_from(words).unwrap();
        let notices = ignored(&matches);
        let option = |notice| match notice {
            Notice::OptionIgnored { option, .. } => option,
            other => panic!("{other}"),
        };
        notices.into_iter().map(option).collect()
    };
    for (line, expected) in [
        ("brooklet run -m x p --top-k 4 --seed 1", &[][..]),
        ("brooklet run -m x p --temp 0", &[]),
        (
            "brooklet run -m x p --temp 0 --seed 1 --top-k 4",
            &["--top-k", "--seed"],
        ),
        ("brooklet chat --temperature 0 -s 1", &["--seed"]),
        ("brooklet run -m x p --policy dense --sinks 4", &["--sinks"]),
        ("brooklet run -m x p --policy sink --sinks 4", &[]),
        (
            "brooklet ppl -m x -f y --policy dense --sinks 4",
            &["--sinks"],
        ),
        (
            "brooklet ppl -m x -f y --policy dense --sinks 4 --sink-mass",
            &[],
        ),
        (
            "brooklet run -m x p --repeat-last-n 9",
            &["--repeat-last-n"],
        ),
        (
            "brooklet run -m x p --repeat-last-n 9 --presence-penalty 1",
            &[],
        ),
        (
            "brooklet run -m x p --repeat-last-n 0 --presence-penalty 1",
            &["--presence-penalty"],
        ),
        ("brooklet plan -m x.json --ram 4MiB --json", &["--ram"]),
        (
            "brooklet plan -m x.json --skip-weights 4",
            &["--skip-weights"],
        ),
        (
            "brooklet plan -m x --ram 4MiB --skip-weights 4",
            &["--skip-weights"],
        ),
        ("brooklet slim x -o y --layout k --bound 1", &["--bound"]),
        ("brooklet slim x -o y --bound 1", &[]),
        ("brooklet models --json", &[]),
    ] {
        assert_eq!(ignored(line), expected, "{line}");
    }
}
