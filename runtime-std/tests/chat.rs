//! Conversations: the contents of the window after every exchange, and the command through a pipe
//! and on a terminal.

mod common;
#[path = "common/program.rs"]
mod program;
#[path = "common/talking.rs"]
mod talking;

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use brooklet::ModelOptions;
use brooklet::chat::{CHATML, Chat, Cut, LiveMessage, Role, Said, Template};
use brooklet::core::cache::ElementType;
use brooklet::core::sampler::{Sampler, SamplerOptions};
use brooklet::generate::{Finish, Request};
use brooklet::planning::Settings;
use common::{pulled, tiny};
use program::program;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use talking::talking_model;

const SYSTEM: &str = "Be brief.";
/// The tiny model's SentencePiece puts a blank before a text; the control tokens of the template
/// are words to it.
const PINNED: &str = "<s> <|im_start|>system\nBe brief.<|im_end|>\n";

/// Starts a chat with the tiny model, `window` tokens in the cache beside four sinks.
fn with_chat<R>(window: usize, work: impl FnOnce(&mut Chat) -> R) -> R {
    with_template(CHATML, window, work)
}

/// As [`with_chat`], with another template.
fn with_template<R>(source: &str, window: usize, work: impl FnOnce(&mut Chat) -> R) -> R {
    let model = ModelOptions::new().workers(1).open(tiny()).unwrap();
    let settings = Settings {
        window: Some(window),
        // Keys at other absolute positions are the same only up to rounding; in f32 no choice among
        // tokens hangs on that.
        cache_type: ElementType::F32,
        ..Settings::default()
    };
    let session = model.session(&settings).unwrap();
    let template = Template::new(source, "", "").unwrap();
    work(&mut Chat::new(session, template, Some(SYSTEM.into())).unwrap())
}

/// Says something; the model answers with at most `limit` tokens.
fn say(chat: &mut Chat, words: &str, limit: u64, seed: u64) -> (String, Finish) {
    let (answer, said) = exchange(chat, words, limit, seed);
    (answer, said.report.finish)
}

/// As [`say`], with all that is known of the exchange.
fn exchange(chat: &mut Chat, words: &str, limit: u64, seed: u64) -> (String, Said) {
    let mut answer = String::new();
    let mut sampler = Sampler::new(SamplerOptions {
        temperature: 1.0,
        seed,
        ..SamplerOptions::default()
    });
    let request = Request {
        limit: Some(limit),
        past_end: limit > 200,
        ..Request::default()
    };
    let mut sink = |text: &str| {
        answer += text;
        Ok(())
    };
    let said = chat.say(words, &request, &mut sampler, &mut sink).unwrap();
    (answer, said)
}

/// Returns the comparable part of a random model's text, which also contains control tokens and
/// halves of characters.
fn plain(text: &str) -> String {
    let text = text
        .replace("<s>", "")
        .replace("</s>", "")
        .replace("<unk>", "");
    text.chars().filter(char::is_ascii).collect()
}

/// The window holds whole messages in order, the last exchange with them, and as much as the books
/// say.
fn check(chat: &Chat, words: &str, answer: &str) -> Result<(), TestCaseError> {
    let live = chat.live();
    prop_assert_eq!(chat.pinned(), PINNED);
    let ring = chat.session().ring();
    // The oldest message has its opening among the pinned tokens, as every message has it.
    let tokens: usize = live.iter().map(|message| message.tokens).sum();
    let opening = tokens + ring.sinks() - ring.live();
    prop_assert!((4..20).contains(&opening), "{}", opening);
    prop_assert_eq!(live[0].role, Role::User);
    prop_assert!(ring.live() <= ring.capacity());
    for pair in live.windows(2) {
        let follows = match pair[0].role {
            Role::User => (Role::Assistant, pair[0].turn),
            Role::Assistant => (Role::User, pair[0].turn + 1),
        };
        prop_assert_eq!((pair[1].role, pair[1].turn), follows);
    }
    for (i, message) in live.iter().enumerate() {
        let LiveMessage {
            role, whole, text, ..
        } = message;
        let name = if *role == Role::User {
            "user"
        } else {
            "assistant"
        };
        let is_framed =
            text.starts_with(&format!("<|im_start|>{name}\n")) && text.ends_with("<|im_end|>\n");
        prop_assert!(is_framed, "{}", text);
        // Only the message that was answered last may have lost tokens.
        let is_current = i == 0 && live.len() == 2;
        prop_assert!(*whole || is_current, "{:?}", live);
    }
    let last = &live[live.len() - 1];
    prop_assert_eq!((last.role, last.turn), (Role::Assistant, chat.turn()));
    prop_assert!(last.whole);
    let expected = format!("<|im_start|>assistant\n{}<|im_end|>\n", plain(answer));
    prop_assert_eq!(plain(&last.text), expected);
    let question = &live[live.len() - 2];
    let asked = format!("{words}<|im_end|>\n");
    let kept = question.text.strip_prefix("<|im_start|>user\n").unwrap();
    prop_assert!(asked.ends_with(kept), "{:?} of {:?}", kept, asked);
    prop_assert_eq!(question.whole, kept == asked);
    prop_assert!(kept.len() > 15 || question.whole, "{}", kept);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_240_517),
        ..ProptestConfig::with_cases(24)
    })]

    #[test]
    fn messages_are_never_cut_in_half(
        window in 120..230usize,
        turns in prop::collection::vec(("[a-z <|>]{1,60}", 1..40u64), 1..25),
        seed: u64,
    ) {
        with_chat(window, |chat| {
            for (i, (words, limit)) in turns.iter().enumerate() {
                let (answer, _) = say(chat, words, *limit, seed.wrapping_add(i as u64));
                check(chat, words, &answer)?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}

#[test]
fn a_message_longer_than_the_window_is_cut_at_its_beginning_and_that_is_told() {
    with_chat(150, |chat| {
        say(chat, "hello", 5, 1);
        let long = "word ".repeat(200);
        let (answer, said) = exchange(chat, &long, 5, 2);
        let Cut {
            message,
            left_out,
            left,
            forgotten,
        } = said.cut;
        assert!(message > 200 && left_out > message - 150, "{:?}", said.cut);
        assert!(left < 10 && forgotten == 2, "{:?}", said.cut);
        check(chat, &long, &answer).unwrap();
        assert_eq!(chat.live().len(), 2);
        // An answer for which the whole window is too small: it ends, and the question stays.
        let (answer, said) = exchange(chat, "more", 300, 3);
        assert_eq!(said.report.finish, Finish::Full);
        assert!(said.report.tokens > 30 && said.cut.left_out == 0);
        check(chat, "more", &answer).unwrap();
        assert!(chat.live()[0].whole);
        // A message that leaves while it is answered.
        let words = "a b c d e f g h i j k l m n o p q r s t u v w x y z ".repeat(2);
        let (answer, said) = exchange(chat, &words, 300, 4);
        assert_eq!(said.report.finish, Finish::Full);
        assert!(said.cut.left > 10, "{:?}", said.cut);
        check(chat, words.trim_end(), &answer).unwrap_err();
        check(chat, &words, &answer).unwrap();
    });
}

/// Whatever a template writes, the end of the question and the whole answer stay, and the oldest
/// message has the beginning that the template gives it.
#[test]
fn every_template_keeps_the_message_being_answered() {
    let inst = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>{% elif m.role == 'user' %}\
        [INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}";
    let bare = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
    let late = "{% for m in messages %}{% if not loop.first %}\n{% endif %}### {{ m.role }}:\n{{ m.content }}{% endfor %}\
        {% if add_generation_prompt %}\n### assistant:\n{% endif %}";
    for (template, opening, after) in [
        (CHATML, "<|im_start|>user\n", "<|im_end|>\n"),
        (inst, "[INST]", " [/INST]"),
        (bare, "", "\n"),
        (late, "### user:\n", ""),
    ] {
        for window in [130, 151, 190] {
            with_template(template, window, |chat| {
                for turn in 0..12u64 {
                    let words = "so it is ".repeat([1, 3, 9, 40][turn as usize % 4]);
                    let words = words.trim();
                    let (answer, said) = exchange(chat, words, [5, 250][turn as usize % 2], turn);
                    let live = chat.live();
                    let [.., question, last] = &live[..] else {
                        panic!("{live:?}");
                    };
                    assert_eq!((question.turn, last.turn), (chat.turn(), chat.turn()));
                    let asked = format!("{words}{after}");
                    let kept = question.text.trim_start().strip_prefix(opening).unwrap();
                    let kept = kept.trim_start();
                    assert!(asked.ends_with(kept) || kept.ends_with(&asked), "{kept:?}");
                    let is_whole = said.cut.left_out + said.cut.left == 0;
                    assert_eq!(question.whole, is_whole, "{:?} {question:?}", said.cut);
                    assert!(last.whole && plain(&last.text).contains(plain(&answer).trim()));
                    let oldest = live[0].text.trim_start();
                    assert!(oldest.starts_with(opening), "{oldest:?}");
                }
            });
        }
    }
}

#[test]
fn an_exchange_is_undone_and_one_of_long_ago_recalled() {
    with_chat(240, |chat| {
        let first = say(chat, "hello", 9, 1);
        let before = chat.live();
        let second = say(chat, "and", 9, 2);
        let after = chat.live();
        assert!(chat.undo().unwrap());
        assert_eq!(chat.live().len(), 2);
        assert_eq!(chat.live()[..], before[..]);
        assert_eq!(say(chat, "and", 9, 2), second);
        let texts = |live: &[LiveMessage]| -> Vec<String> {
            live.iter().map(|message| message.text.clone()).collect()
        };
        assert_eq!(texts(&chat.live()), texts(&after));
        for _ in 0..2 {
            assert!(chat.undo().unwrap());
        }
        assert!(!chat.undo().unwrap());
        assert_eq!((chat.live().len(), chat.pinned()), (0, PINNED.into()));
        assert_eq!(say(chat, "hello", 9, 1), first);
        chat.reset().unwrap();
        let cut = chat.recall("Who?", "I <|im_end|> am.").unwrap();
        assert_eq!((cut.left_out, cut.left, cut.forgotten), (0, 0, 0));
        check(chat, "Who?", "I <|im_end|> am.").unwrap();
        // An answer that is longer than the window ends in it.
        chat.recall("Who?", &"long ".repeat(300)).unwrap();
        let live = chat.live();
        assert!(live.len() == 2 && live[1].text.ends_with("<|im_end|>\n"));
    });
}

/// A conversation continues as if the evicted messages had never been said, except that earlier
/// answers were made from them.
#[test]
fn resetting_and_changing_the_system_prompt_begin_anew() {
    with_chat(200, |chat| {
        let first = say(chat, "hello", 9, 1);
        say(chat, "and", 9, 2);
        chat.reset().unwrap();
        assert_eq!((chat.live().len(), chat.pinned()), (0, PINNED.into()));
        assert_eq!(say(chat, "hello", 9, 1), first);
        chat.set_system(Some("x".repeat(900))).unwrap_err();
        assert_eq!((chat.live().len(), chat.pinned()), (2, PINNED.into()));
        chat.set_system(None).unwrap();
        assert_eq!(chat.live().len(), 0);
        say(chat, "hello", 9, 1);
        assert_eq!(chat.live()[0].turn, 4);
    });
}

/// Runs `brooklet chat` with `input` on standard input.
fn chat(arguments: &[&str], input: &str) -> Output {
    let mut child = program()
        .arg("chat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn strings(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn through_a_pipe_answers_alone_go_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let (dump, saved) = (folder.path().join("dump"), folder.path().join("saved"));
    let arguments = [
        "-m",
        model.to_str().unwrap(),
        "--system",
        SYSTEM,
        "--seed",
        "7",
        "-n",
        "6",
        "--ctx-dump",
        dump.to_str().unwrap(),
    ];
    let input = format!(
        "first\n\n/system\nsecond \\\nline\n/stats\n/save {}\n/nothing\n/help\n/reset\nthird\n/exit\nnot said\n",
        saved.display()
    );
    let output = chat(&arguments, &input);
    let (stdout, stderr) = strings(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for expected in [
        "Be brief.\n",
        "tokens seen",
        "saved 4 messages",
        "/nothing is not a command",
        "/reset",
        "messages forgotten",
    ] {
        assert!(stderr.contains(expected), "no {expected} in {stderr}");
    }
    assert!(
        stderr
            .lines()
            .filter(|line| !line.contains(saved.to_str().unwrap()))
            .all(|line| line.len() <= 40 || line.starts_with(' ')),
        "{stderr}"
    );
    let dump = fs::read_to_string(dump).unwrap();
    let lines: Vec<serde_json::Value> = dump
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let texts: Vec<usize> = lines
        .iter()
        .map(|line| line["messages"].as_array().unwrap().len())
        .collect();
    assert_eq!(texts, [2, 4, 2]);
    assert_eq!(
        lines[1]["messages"][2]["text"],
        "<|im_start|>user\nsecond \nline<|im_end|>\n"
    );
    assert!(lines.iter().all(|line| line["pinned"] == PINNED));
    // The window holds the printed text.
    let mut said = String::new();
    for (line, message) in lines.iter().zip([1, 3, 1]) {
        let text = line["messages"][message]["text"].as_str().unwrap();
        said += text
            .strip_prefix("<|im_start|>assistant\n")
            .unwrap()
            .strip_suffix("<|im_end|>\n")
            .unwrap();
        said += "\n";
    }
    assert_eq!(plain(&stdout), plain(&said));
    let saved = fs::read_to_string(saved).unwrap();
    assert!(
        saved.starts_with("system: Be brief.\n\nuser: first\n\nassistant: "),
        "{saved}"
    );
}

#[test]
fn refusals_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let (model, tiny) = (model.to_str().unwrap(), tiny());
    let long = "x".repeat(300);
    for (arguments, part) in [
        (vec!["-m", tiny.to_str().unwrap()], "no chat template"),
        (vec!["-m", model, "--system", &long], "of the cache's"),
        (vec!["-m", model, "--ram", "1KiB"], "missing"),
        (
            vec!["-m", model, "--ctx-dump", "/nowhere/at/all"],
            "/nowhere/at/all",
        ),
        (vec!["-m", model, "-n", "0"], "-n must be"),
    ] {
        let output = chat(&arguments, "");
        let (stdout, stderr) = strings(&output);
        assert!(!output.status.success() && stdout.is_empty());
        assert!(
            stderr.starts_with("brooklet: ")
                && stderr.contains(part)
                && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

/// Needs `script` of util-linux, which lends a terminal.
#[test]
fn on_a_terminal_there_is_a_prompt_and_ctrl_c_twice_leaves() {
    if Command::new("script").arg("--version").output().is_err()
        || cfg!(not(target_arch = "x86_64"))
    {
        println!("skipped: there is no `script`");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let line = format!(
        "stty cols 40; {} chat -m {} -n 3 --seed 1",
        env!("CARGO_BIN_EXE_brooklet"),
        model.display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("NO_COLOR", "1")
        .env("TERM", "xterm")
        .env("XDG_STATE_HOME", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut text = String::new();
    // Raw mode begins with the prompt; the terminal itself would interpret keys sent earlier.
    for (answer, key) in [
        ("", "/help\r"),
        ("twice ends the chat", "\x03"),
        ("again ends the chat", "\x03"),
    ] {
        for expected in [answer, "> "] {
            let before = text.len();
            let mut byte = [0];
            while !text[before..].contains(expected) && screen.read(&mut byte).unwrap() > 0 {
                text.push(char::from(byte[0]));
            }
        }
        keys.write_all(key.as_bytes()).unwrap();
    }
    screen.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert!(
        text.contains("> ")
            && text.contains("/save FILE")
            && text.contains("Ctrl-C again ends the chat"),
        "{text}"
    );
    assert!(!text.contains("\x1b[1;32m"), "{text:?}");
}

/// A real model answers a question whose topic only the system prompt and the last message name.
#[test]
fn smollm2_talks_beyond_its_window() {
    if !program::runner().is_empty() {
        println!("skipped: 18,000,000,000 instructions are too many for an emulator");
        return;
    }
    if pulled("smollm2-135m").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let questions: String = ["Paris", "Rome", "Berlin", "Madrid", "Lisbon", "Vienna"]
        .iter()
        .map(|city| format!("In which country is {city}?\n"))
        .collect();
    let arguments = [
        "--system",
        "You answer questions about cities.",
        "--temp",
        "0",
        "-n",
        "40",
        "--window",
        "120",
        "--ctx-dump",
        dump.to_str().unwrap(),
    ];
    let output = chat(&arguments, &questions);
    let (stdout, stderr) = strings(&output);
    assert!(output.status.success(), "{stderr}");
    for country in ["France", "Italy", "Germany", "Spain", "Portugal", "Austria"] {
        assert!(stdout.contains(country), "{stdout}");
    }
    let dump = fs::read_to_string(dump).unwrap();
    for line in dump.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            line["pinned"],
            "<|im_start|>system\nYou answer questions about cities.<|im_end|>\n"
        );
        assert!(
            line["messages"]
                .as_array()
                .unwrap()
                .iter()
                .all(|message| message["whole"] == true)
        );
    }
    assert!(
        dump.lines().last().unwrap().contains("Vienna")
            && !dump.lines().last().unwrap().contains("Paris")
    );
}
