//! Bounds of all numbers of all commands: what lies outside is refused with a sentence.

use super::options::{base, joined, seen};

#[test]
fn absurd_numbers_are_refused_with_a_sentence() {
    let numbers: &[(&str, &[&str])] = &[
        (
            "run",
            &[
                "-n",
                "--window",
                "-c",
                "--sinks",
                "-t",
                "--skip-weights",
                "--temp",
                "--top-k",
                "--top-p",
                "--min-p",
                "--repeat-penalty",
                "--presence-penalty",
                "--frequency-penalty",
                "--repeat-last-n",
                "--logit-bias",
                "-s",
                "--ram",
            ],
        ),
        (
            "chat",
            &["-n", "--window", "-c", "-t", "--temp", "-s", "--ram"],
        ),
        (
            "ppl",
            &[
                "--start", "--count", "--stride", "--window", "-c", "--sinks", "-t", "--ram",
            ],
        ),
        (
            "plan",
            &["--window", "-c", "--sinks", "-t", "--ram", "--bandwidth"],
        ),
        ("bench", &["-p", "-n", "-d", "-r", "--window", "-t"]),
        ("quantize", &["-t"]),
        ("slim", &["--calib-tokens", "--bound", "-t"]),
        ("caption", &["--ram", "-t"]),
    ];
    let absurd = [
        "-1",
        "-2",
        "99999999999",
        "18446744073709551616",
        "1e400",
        "nan",
        "",
        "1.5",
        "0x10",
    ];
    for (name, options) in numbers {
        for option in *options {
            let mut refused = 0;
            for value in absurd {
                // Runs without an end are what -1 asks for.
                if *option == "-n"
                    && (value == "-1" || value.len() > 10)
                    && matches!(*name, "run" | "chat")
                {
                    continue;
                }
                let (text, code) = seen(&joined(base(name), &[option, value]));
                assert!(
                    matches!(code, Some(0..=2)),
                    "{name} {option} {value}: {code:?} {text}"
                );
                assert!(
                    !text.contains("unexpected argument"),
                    "{name} {option} {value}: {text}"
                );
                refused += usize::from(code == Some(2) && text.contains(value) || code == Some(1));
            }
            assert!(refused >= 5, "{name} {option}: {refused} refused");
        }
    }
}
