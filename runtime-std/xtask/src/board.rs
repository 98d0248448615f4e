//! A board must give the host's tokens, survive any typed bytes, and stay under its ceilings.

use std::path::Path;

use brooklet_board_data::Board;
use brooklet_core::cache::ElementType;
use brooklet_core::gguf::Gguf;
use brooklet_core::model::Config;
use brooklet_firmware::LINE;

use crate::elf::Sizes;
use crate::emulator::{Limit, Said, Session};
use crate::firmware::Firmware;
use crate::reference::{Reference, setup_of};
use crate::{Error, boards_folder, model_of, table};

/// Tokens that are compared.
const TOKENS: usize = 200;

/// Tokens that are compared after a prompt that was typed.
const TYPED_TOKENS: usize = 32;

/// A typed line.
const PROMPT: &str = "The dragon was 7 years old.";

/// Builds, boots and compares, greedily.
pub fn check(name: &str, board: &Board) -> Result<(), Error> {
    let mut board = board.clone();
    board.temperature = 0.0;
    let model = model_of(&board);
    let setup = setup_of(&board);
    let expected = Reference::run(&model, setup, &board.opening, TOKENS)?;
    let image = Firmware::new(name, &board).image(&format!("firmware-{name}"))?;
    let sizes = Sizes::of(&image)?;
    check_arena(&sizes, &expected)?;

    let limit = Limit::of(4 * TOKENS, expected.parameters);
    let mut session = Session::start(&image, &board, limit, &[])?;
    let said = compare(&mut session, &expected)?;
    let used = session.stack()?;
    let was_full = check_noise(&mut session)?;
    // The noise does not change the story: it is the host's.
    let ids: Vec<u32> = session
        .entries
        .iter()
        .filter_map(|entry| entry.token().map(|(id, _)| id))
        .collect();
    if Reference::run(&model, setup, &board.opening, ids.len())?.ids != ids {
        return Err(format!("the story changed at the noise: {ids:?}").into());
    }
    let typed = Reference::run(&model, setup, PROMPT, TYPED_TOKENS)?;
    check_prompt(&mut session, &typed)?;

    say!(
        "{name} ({}): {TOKENS} tokens and {TYPED_TOKENS} after a prompt as on the host; noise{} and an overlong line changed nothing",
        board.core,
        if was_full {
            ", a full queue"
        } else {
            " (which came too slowly to fill the queue)"
        }
    );
    report(&board, &sizes, used, &expected, &said)?;
    under("flash", sizes.flash, board.max_flash)?;
    under(
        "RAM",
        sizes.ram + u64::from(board.stack_bytes),
        board.max_ram,
    )?;
    under("stack", used.into(), board.max_stack.into())
}

/// As [`check`], with another model, of which nothing is known: optimized for speed, without
/// ceilings and without typed lines.
pub fn check_model(name: &str, board: &Board, model: &Path) -> Result<(), Error> {
    let mut board = board.clone();
    board.model = model.canonicalize()?.display().to_string();
    board.temperature = 0.0;
    board.window = board.window.min(context(model)? - board.sinks);
    (board.flash_bytes, board.ram_bytes, board.budget) = (board.flash_there, 0x8_0000, 0x6_0000);
    board.opt_level = "3".into();
    let expected = Reference::run(&model_of(&board), setup_of(&board), &board.opening, TOKENS)?;
    let image = Firmware::new(name, &board).image("firmware-model")?;
    let sizes = Sizes::of(&image)?;
    check_arena(&sizes, &expected)?;
    let limit = Limit::of(4 * TOKENS, expected.parameters);
    let mut session = Session::start(&image, &board, limit, &[])?;
    let said = compare(&mut session, &expected)?;
    say!(
        "{name} ({}), {}, {} + {} tokens kept: {TOKENS} tokens as on the host",
        board.core,
        model.display(),
        board.sinks,
        board.window
    );
    report(&board, &sizes, session.stack()?, &expected, &said)
}

/// Positions that the model was trained for.
fn context(model: &Path) -> Result<usize, Error> {
    let bytes = std::fs::read(model)?;
    Ok(Config::from_gguf(&Gguf::parse(&bytes)?)?.context)
}

/// Prints sizes and instructions.
fn report(
    board: &Board,
    sizes: &Sizes,
    used: u32,
    expected: &Reference,
    said: &[Said],
) -> Result<(), Error> {
    say!(
        "  flash {} of {} bytes (the model {}), RAM {} of {} (the arena {}, the stack's room {}, used {used} of {})",
        sizes.flash,
        board.max_flash,
        std::fs::metadata(model_of(board))?.len(),
        sizes.ram + u64::from(board.stack_bytes),
        board.max_ram,
        sizes.arena,
        board.stack_bytes,
        board.max_stack
    );
    // The model reads a token in the step after the one that says it.
    let per_parameter = |said: &Said| said.instructions as f64 / expected.parameters as f64;
    say!(
        "  {} parameters; instructions for each: {:.2} at position 32, {:.2} at the last of {TOKENS} tokens",
        expected.parameters,
        per_parameter(&said[33 - expected.prompt.len()]),
        per_parameter(&said[TOKENS - 1])
    );
    Ok(())
}

/// The arena has exactly the planned size.
fn check_arena(sizes: &Sizes, expected: &Reference) -> Result<(), Error> {
    let planned = expected.plan.bytes();
    if sizes.arena != planned as u64 {
        return Err(format!(
            "the arena has {} bytes, the host plans {planned}",
            sizes.arena
        )
        .into());
    }
    Ok(())
}

/// The board says the same tokens and the same text.
pub fn compare(session: &mut Session, expected: &Reference) -> Result<Vec<Said>, Error> {
    let mut said = Vec::new();
    for (i, id) in expected.ids.iter().enumerate() {
        let token = session.said()?;
        if token.id != *id {
            return Err(format!(
                "token {i} is {} on the board and {id} on the host",
                token.id
            )
            .into());
        }
        said.push(token);
    }
    let text = session.text(expected.text.len())?;
    if !text.starts_with(expected.text.as_bytes()) {
        let text = String::from_utf8_lossy(&text).into_owned();
        return Err(format!(
            "board and host differ\nboard:\n{text}\nhost:\n{}",
            expected.text
        )
        .into());
    }
    Ok(said)
}

/// Noise on the line, a queue that is full and a line that is too long are logged and cost nothing
/// else. Returns whether the queue was full: an emulator on a busy machine passes bytes on so
/// slowly that the firmware reads each in time.
fn check_noise(session: &mut Session) -> Result<bool, Error> {
    // No byte that ends a line: it would be a prompt.
    let noise: Vec<u8> = (0..8 * LINE).map(|i| (i * 37 % 256) as u8).collect();
    let noise: Vec<u8> = noise
        .into_iter()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    session.type_in(&noise)?;
    while !session.has_logged("is thrown away") {
        // A full queue loses the end of the line too; an end more is nothing to the firmware.
        session.said()?;
        session.said()?;
        session.type_in(b"\n")?;
    }
    session.said()?;
    Ok(session.has_logged("came faster than they were read"))
}

/// A line that is typed begins a new story.
fn check_prompt(session: &mut Session, expected: &Reference) -> Result<(), Error> {
    session.type_in(PROMPT.as_bytes())?;
    session.type_in(b"\n")?;
    let tokens = expected.prompt.len();
    session.wait_for(&format!("a prompt of {tokens} tokens"))?;
    for (i, id) in expected.ids.iter().enumerate() {
        let token = session.said()?;
        if token.id != *id {
            return Err(format!(
                "token {i} after a prompt is {} on the board and {id} on the host",
                token.id
            )
            .into());
        }
    }
    session.hear(&expected.text)
}

/// Refuses more than `ceiling` bytes.
pub fn under(what: &str, bytes: u64, ceiling: u64) -> Result<(), Error> {
    if bytes > ceiling {
        let over = bytes - ceiling;
        return Err(format!(
            "{what} takes {bytes} bytes, {over} more than its ceiling of {ceiling}"
        )
        .into());
    }
    Ok(())
}

/// Two random models, with expected tokens from another program: the firmware runs them without a
/// change to its source.
pub fn check_other_models() -> Result<(), Error> {
    const NAME: &str = "mps2-an386";
    const WORDS: usize = 32;
    for model in ["random", "other"] {
        let mut board = Board::read(&table(), NAME)?;
        board.model = format!("../../core/tests/data/{model}.gguf");
        board.opening = "The sea was 7 °C.".into();
        (board.sinks, board.window, board.chunk) = (4, 20, 4);
        (board.cache, board.temperature) = (ElementType::F16, 0.0);
        board.features.push("cache-f16".into());
        let (path, setup) = (model_of(&board), setup_of(&board));
        Reference::run_in_f32(&path, setup, &board.opening, WORDS)?.check_ids(
            &boards_folder()
                .join("cortex-m/model")
                .join(model)
                .with_extension("ids"),
        )?;
        let expected = Reference::run(&path, setup, &board.opening, WORDS)?;
        let image = Firmware::new(NAME, &board).image(&format!("firmware-{model}"))?;
        check_arena(&Sizes::of(&image)?, &expected)?;
        let limit = Limit::of(4 * WORDS, expected.parameters.max(100_000));
        let mut session = Session::start(&image, &board, limit, &[])?;
        compare(&mut session, &expected)?;
        say!(
            "{NAME} with {model}.gguf: {WORDS} tokens as on the host, which in f32 agrees with another program"
        );
    }
    Ok(())
}
