//! `brooklet caption`, with a tiny random speech model: it writes nonsense, always the same, and
//! by the rules. (Real models are in `docs/captions.md`.)

use std::io::Write;

use super::*;

pub(crate) const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../core/tests/data/random-whisper-f32.gguf"
);

pub(crate) fn sound(name: &str) -> String {
    format!("{}/tests/data/sound/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A model that hears samples and writes text only.
const WITHOUT_TIMES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../core/tests/data/random-moonshine-f32.gguf"
);

fn caption(rest: &[&str]) -> Output {
    brooklet(&[&["caption", "-m", MODEL], rest].concat())
}

/// Gives raw samples to a `brooklet caption -` with these options.
fn piped(samples: &[i16], rest: &[&str]) -> Output {
    piped_to(MODEL, samples, rest)
}

fn piped_to(model: &str, samples: &[i16], rest: &[&str]) -> Output {
    let arguments = [&["caption", "-m", model, "-", "--raw", "s16le"], rest].concat();
    let mut child = command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    child.wait_with_output().unwrap()
}

/// Two and a half seconds that change: the model hears half a second at once.
fn noise() -> Vec<i16> {
    let mut state = 1u32;
    let next = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let loudness = 1 + i / 4000;
        ((state >> 17) as i16 - (1 << 14)) / 10 * loudness as i16
    };
    (0..40_000).map(next).collect()
}

#[test]
fn threads_and_budgets_change_no_caption() {
    let noise = noise();
    let once = text(piped(&noise, &["--format", "jsonl", "-t", "1"]));
    assert!(!once.is_empty());
    for rest in [["-t", "3"], ["-t", "2"], ["--cross-cache", "kv"]] {
        let rest = [&["--format", "jsonl"], &rest[..]].concat();
        assert_eq!(text(piped(&noise, &rest)), once);
    }
    // The encoder's output, or other types, may write other nonsense, but they write.
    for rest in [
        ["--cross-cache", "e"],
        ["--cache", "x"],
        ["--cache-type", "q8_0"],
    ] {
        text(piped(&noise, &rest));
    }
}

/// Times rise, captions do not overlap, and none is after the sound's end.
#[test]
fn captions_are_in_order() {
    let mut end = 0.0;
    for line in text(piped(&noise(), &["--format", "jsonl"])).lines() {
        let caption = json(line);
        let time = |name: &str| caption[name].as_f64().unwrap();
        assert!(
            time("start") >= end && time("end") >= time("start"),
            "{line}"
        );
        assert!(!caption["text"].as_str().unwrap().contains('\n'));
        end = time("end");
    }
    assert!(end > 0.0 && end <= 2.5);
}

/// A model without times: the sound is cut at its pauses, each part gives one caption, and what is
/// silent gives none.
#[test]
fn a_sound_is_cut_at_pauses_for_a_model_without_times() {
    let noise = noise();
    let silence = vec![0; 16_000 * 3];
    // Loud for 7.5 s, silent for 3 s, and so on: 21 s.
    let part = [&noise[..], &noise, &noise, &silence].concat();
    let sound = part.repeat(2);
    let once = text(piped_to(WITHOUT_TIMES, &sound, &["--format", "jsonl"]));
    let captions: Vec<_> = once.lines().map(json).collect();
    let time = |caption: &serde_json::Value, name: &str| caption[name].as_f64().unwrap();
    assert_eq!(captions.len(), 2, "{once}");
    for (caption, loud) in captions.iter().zip([0.0, 10.5]) {
        // 200 ms around what is loud, and no more.
        assert!((time(caption, "start") - loud).abs() <= 0.22, "{once}");
        assert!((time(caption, "end") - loud - 7.5).abs() <= 0.22, "{once}");
    }
    for rest in [["-t", "3"], ["--cross-cache", "kv"], ["--language", "en"]] {
        let rest = [&["--format", "jsonl"], &rest[..]].concat();
        assert_eq!(text(piped_to(WITHOUT_TIMES, &sound, &rest)), once);
    }
    let output = piped_to(WITHOUT_TIMES, &silence, &["--stats"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("3.0 s were taken as silence"), "{said}");
    assert_eq!(text(output), "");
    // One sample, and one that is loud.
    assert_eq!(text(piped_to(WITHOUT_TIMES, &[0], &[])), "");
    text(piped_to(WITHOUT_TIMES, &[9000], &[]));
    for (rest, expected) in [
        (["--language", "de"], "does not know the language \"de\""),
        (["--task", "translate"], "cannot translate"),
        (["--prompt", "Names"], "takes no prompt"),
        (["--carry", "--once"], "takes no prompt"),
        (["--cache", "x"], "rotat"),
    ] {
        let file = super::caption::sound("tone.flac");
        let arguments = [&["caption", "-m", WITHOUT_TIMES, &file], &rest[..]].concat();
        let sentence = failure(brooklet(&arguments), 1);
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[test]
fn a_file_is_heard_as_what_it_decodes_to() {
    for name in ["tone.flac", "tone.mp3"] {
        for format in ["txt", "srt", "vtt"] {
            let output = text(caption(&[&sound(name), "--format", format]));
            assert_eq!(format == "vtt", output.starts_with("WEBVTT\n\n"));
        }
    }
}

#[test]
fn what_cannot_be_captioned_is_refused_in_a_sentence() {
    let flac = sound("tone.flac");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (rest, expected) in [
        (&[manifest][..], "not a sound file"),
        (&["there-is-no-such-file.wav"], "there-is-no-such-file.wav"),
        (
            &[&flac, "--language", "de"],
            "does not know the language \"de\"",
        ),
        (&[&flac, "--task", "translate"], "cannot translate"),
        (&[&flac, "--ram", "10KiB"], "bytes are missing"),
        (
            &[&flac, "--prompt", &"word ".repeat(30)],
            "takes 15 at most",
        ),
    ] {
        let sentence = failure(caption(rest), 1);
        assert!(sentence.contains(expected), "{sentence}");
    }
    let tiny = tiny();
    let sentence = failure(
        brooklet(&["caption", "-m", tiny.to_str().unwrap(), &flac]),
        1,
    );
    assert!(sentence.contains("hears nothing"), "{sentence}");
    for command in ["run", "bench", "chat"] {
        let sentence = failure(brooklet(&[command, "-m", MODEL]), 1);
        assert!(sentence.contains("brooklet caption"), "{sentence}");
    }
    let empty = piped(&[], &[]);
    let said = String::from_utf8_lossy(&empty.stderr).into_owned();
    assert!(said.contains("the sound is empty"), "{said}");
    assert_eq!(text(empty), "");
}

#[test]
fn captions_go_to_files_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (one, two) = (path("one.flac"), path("two.mp3"));
    fs::copy(sound("tone.flac"), &one).unwrap();
    fs::copy(sound("tone.mp3"), &two).unwrap();
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let both = caption(&[&one, &two, "--beside", "--format", "srt"]);
    assert!(said(&both).contains("one.srt") && said(&both).contains("two.srt"));
    assert_eq!(text(both), "");
    assert_eq!(read("one.srt"), text(caption(&[&one, "--format", "srt"])));
    assert_eq!(read("two.srt"), text(caption(&[&two, "--format", "srt"])));
    // What is there stays, unless it may be replaced; one sound that fails keeps no other waiting.
    fs::write(path("one.srt"), "mine").unwrap();
    fs::remove_file(path("two.srt")).unwrap();
    let again = caption(&[&one, &two, "--beside", "--format", "srt"]);
    assert_eq!(again.status.code(), Some(1));
    let words = said(&again);
    assert!(
        words.contains("one.srt exists") && words.contains("1 of 2 sounds failed"),
        "{words}"
    );
    assert_eq!(read("one.srt"), "mine");
    assert!(!read("two.srt").is_empty());
    text(caption(&[&one, "--beside", "--format", "srt", "--force"]));
    assert_ne!(read("one.srt"), "mine");

    fs::create_dir(path("out")).unwrap();
    text(caption(&[
        &one,
        &two,
        "-o",
        &path("out"),
        "--format",
        "vtt",
    ]));
    assert!(read("out/one.vtt").starts_with("WEBVTT\n\n") && read("out/two.vtt").len() > 8);
    text(caption(&[&one, "-o", &path("words")]));
    assert_eq!(read("words"), text(caption(&[&one])));
    let refused = |rest: &[&str], part: &str| {
        let sentence = failure(caption(rest), 2);
        assert!(sentence.contains(part), "{sentence}");
    };
    refused(&[&one, &two], "--beside");
    refused(&[&one, &two, "-o", &path("words")], "a folder");
    refused(&["-", "--beside"], "no name");
    fs::create_dir(path("more")).unwrap();
    fs::copy(&one, path("more/one.mp3")).unwrap();
    let more = path("more/one.mp3");
    refused(
        &[&one, &more, "-o", &path("out"), "--force"],
        "would be one file",
    );
    // A sound that breaks off leaves what was there, and says so.
    let bytes = fs::read(&one).unwrap();
    fs::write(path("cut.flac"), &bytes[..bytes.len() / 2]).unwrap();
    let cut = path("cut.flac");
    fs::write(path("words"), "mine").unwrap();
    failure(caption(&[&cut, "-o", &path("words"), "--force"]), 1);
    assert_eq!(read("words"), "mine");
    let output = caption(&[&cut, "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let all = json(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(all["complete"], false);
    // What is wrong with the options is said once.
    let sentence = failure(caption(&[&one, &two, "--beside", "--language", "xx"]), 1);
    assert_eq!(sentence.matches("does not know").count(), 1);
    let sentence = failure(caption(&[&one, "-o", &one, "--force"]), 1);
    assert!(sentence.contains("is the input"), "{sentence}");
}

/// One object, and its captions are those of the other formats.
#[test]
fn json_has_everything_that_is_known() {
    let noise = noise();
    let all = json(&text(piped(&noise, &["--format", "json"])));
    let lines = text(piped(&noise, &["--format", "jsonl"]));
    let lines: Vec<_> = lines.lines().map(json).collect();
    assert_eq!(all["captions"].as_array().unwrap(), &lines);
    assert_eq!(
        (&all["seconds"], &all["language"]),
        (&2.5.into(), &().into())
    );
    assert_eq!(all["complete"], true);
    let none = json(&text(piped(&[], &["--format", "json"])));
    assert_eq!(none["captions"], serde_json::json!([]));
}

/// The random model is always unsure: it is asked again, with the same draws in every run.
#[test]
fn an_unsure_text_is_written_again() {
    let noise = noise();
    let run = |rest: &[&str]| {
        let output = piped(&noise, &[&["--format", "jsonl", "--stats"], rest].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (text(output), said)
    };
    let (tried, said) = run(&[]);
    assert!(said.contains("were written more than once"), "{said}");
    assert_eq!(run(&["-t", "3"]).0, tried);
    let (once, said) = run(&["--once"]);
    assert!(!said.contains("more than once"), "{said}");
    assert_ne!(once, tried);
    assert_ne!(run(&["--once", "--carry"]).0, once);
}
