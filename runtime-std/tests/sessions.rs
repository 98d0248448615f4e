//! Sessions of one model: each says what it would say alone, takes its arena and nothing else, and
//! ends when it is told to.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use brooklet::core::generate::Finish;
use brooklet::system::memory::MemoryUse;
use brooklet::{Cancel, Error, Model, ModelOptions, Session, Settings};

/// Memory is measured for the whole process: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

fn tiny() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "models/stories/tiny-q8_0.gguf"]
        .iter()
        .collect()
}

fn open(workers: usize) -> Model {
    ModelOptions::new().workers(workers).open(tiny()).unwrap()
}

fn whole(session: &mut Session, prompt: &str, seed: u64) -> String {
    let text = session.text(prompt).limit(60).temperature(0.9).seed(seed);
    text.collect::<Result<_, Error>>().unwrap()
}

#[test]
fn two_conversations_at_once_one_cancelled_from_another_thread() {
    let _turn = TURN.lock();
    struct Talk {
        session: Session,
        cancel: Cancel,
    }
    let model = open(2);
    let settings = Settings::new().budget(4 << 20);
    let talk = || Talk {
        session: model.session(&settings).unwrap(),
        cancel: Cancel::new(),
    };
    let (mut sea, mut hills) = (talk(), talk());
    let cancel = hills.cancel.clone();
    let endless = thread::spawn(move || {
        let text = hills.session.text("The hills");
        let pieces = text.endless().cancelled_by(&hills.cancel).count();
        (pieces, hills)
    });
    let said = whole(&mut sea.session, "The sea was", 1);
    assert!(!sea.cancel.is_cancelled());
    cancel.cancel();
    let (pieces, mut hills) = endless.join().unwrap();
    assert_eq!(hills.session.finish(), Some(Finish::Interrupted));
    assert_eq!(sea.session.finish(), Some(Finish::Length));
    assert!(!said.is_empty());
    // What was cancelled can go on, with a wish of its own.
    let more = hills
        .session
        .text("")
        .limit(5)
        .collect::<Result<Vec<_>, _>>();
    assert!(!more.unwrap().is_empty(), "after {pieces} pieces");
}

#[test]
fn sessions_say_what_each_would_say_alone() {
    let _turn = TURN.lock();
    let model = open(2);
    let settings = Settings::new().window(40);
    let prompts = [("The sea was", 1), ("A cat and a dog", 2), ("Once", 3)];
    let alone = prompts.map(|(prompt, seed)| {
        let mut session = model.session(&settings).unwrap();
        let first = whole(&mut session, prompt, seed);
        first + &whole(&mut session, " And then", seed)
    });
    // Piece by piece in turns.
    let mut sessions = prompts.map(|_| model.session(&settings).unwrap());
    let mut texts = prompts.map(|_| String::new());
    for (is_second, _) in [(false, ()), (true, ())] {
        let mut running: Vec<_> = sessions
            .iter_mut()
            .zip(prompts)
            .map(|(session, (prompt, seed))| {
                let prompt = if is_second { " And then" } else { prompt };
                session.text(prompt).limit(60).temperature(0.9).seed(seed)
            })
            .collect();
        while let 1.. = running
            .iter_mut()
            .zip(&mut texts)
            .filter_map(|(text, said)| text.next().map(|piece| said.push_str(&piece.unwrap())))
            .count()
        {}
    }
    assert_eq!(texts, alone);
    // And at the same time, on the same threads.
    let at_once = thread::scope(|scope| {
        let threads = prompts.map(|(prompt, seed)| {
            let (model, settings) = (&model, &settings);
            scope.spawn(move || {
                let mut session = model.session(settings).unwrap();
                let first = whole(&mut session, prompt, seed);
                first + &whole(&mut session, " And then", seed)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(at_once, alone);
}

#[cfg(target_os = "linux")]
#[test]
fn a_further_session_takes_its_arena_and_nothing_else() {
    let _turn = TURN.lock();
    let held = || {
        let memory = MemoryUse::now().unwrap();
        memory.anonymous_kib + memory.swap_kib
    };
    let model = open(2);
    let settings = Settings::new().window(252);
    let mut first = model.session(&settings).unwrap();
    whole(&mut first, "The sea was", 1);
    let (before, threads) = (held(), threads());
    let mut second = model.session(&settings).unwrap();
    // Whole chunks, and more than the window, so that nearly every page is written to.
    let prompt = "The sea was wide. ".repeat(200);
    let text = second.text(&prompt).limit(300).temperature(0.9).endless();
    assert!(text.map(|piece| piece.unwrap().len()).sum::<usize>() > 300);
    drop(prompt);
    let grown = held().saturating_sub(before) as usize * 1024;
    let arena = second.plan().bytes();
    assert!(
        grown <= arena + (64 << 10),
        "{grown} bytes for an arena of {arena}"
    );
    assert!(grown >= arena / 2, "{grown} bytes for an arena of {arena}");
    assert_eq!(self::threads(), threads);
    drop(second);
    let left = held().saturating_sub(before);
    assert!(left <= 64, "{left} KiB are left");
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_session_is_planned_before_it_starts_and_can_be_asked() {
    let _turn = TURN.lock();
    let model = open(1);
    let plan = model.plan(&Settings::new().budget(1 << 20)).unwrap();
    let session = model.session(&Settings::new().budget(1 << 20)).unwrap();
    assert_eq!(session.plan(), &plan);
    assert!(plan.bytes() <= 1 << 20);
    assert!(matches!(
        model.session(&Settings::new().budget(1000)),
        Err(Error::Plan { .. })
    ));
    assert!(matches!(
        Model::open("no such file"),
        Err(Error::Read { .. })
    ));
    assert_eq!(session.position(), 0);
}

#[test]
fn texts_end_before_their_stops_and_sessions_begin_anew() {
    let _turn = TURN.lock();
    let mut session = open(1).session(&Settings::new().window(100)).unwrap();
    let all: String = session
        .text("The sea was")
        .limit(40)
        .map(Result::unwrap)
        .collect();
    let (before, stop) = all.split_at(all.char_indices().nth(9).unwrap().0);
    let stop: String = stop.chars().take(4).collect();
    let at = all.find(&stop).unwrap();
    session.reset();
    assert_eq!((session.position(), session.finish()), (0, None));
    let again: String = session
        .text("The sea was")
        .limit(40)
        .stop(&stop)
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        (&again[..], session.finish()),
        (&all[..at], Some(Finish::Stop))
    );
    assert!(before.len() >= at);
}

#[test]
fn models_and_sessions_go_where_threads_go() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Model>();
    shared::<Cancel>();
    sent::<Session>();
}
