//! The display of a pull: bars on a terminal, a line a stage elsewhere.

use std::io::{self, BufRead, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::licence::own_licence;
use super::terminal;
use crate::models::manifest::Manifest;
use crate::models::pull::Event;
use crate::models::store::Store;
use crate::size::Size;

/// Pulls a model with its licence and the progress on standard error. Terms that bind whoever
/// fetches it must be agreed to: `agreed` beforehand, or now on a terminal.
pub fn pull(
    manifest: &Manifest,
    store: &Store,
    agreed: bool,
) -> Result<std::path::PathBuf, Failure> {
    say(&format!(
        "{}: licence {} ({})",
        manifest.title, manifest.licence, manifest.licence_url
    ));
    if let Some(terms) = &manifest.terms {
        say(terms.trim());
        if !agreed && !store.has(manifest) {
            agree(manifest)?;
        }
    }
    let mut view = View { bar: None };
    let result = crate::models::pull::pull(manifest, store, &mut |event| view.show(event));
    view.end();
    let path = result?;
    // The licence of a hub file was unknown until now.
    if let Some(licence) = manifest.path.as_ref().and_then(|_| own_licence(&path)) {
        say(&format!("the file states the licence {licence}"));
    }
    Ok(path)
}

/// Asks for agreement to the model's terms on a terminal; fails elsewhere.
fn agree(manifest: &Manifest) -> Result<(), Failure> {
    let how = format!(
        "read them at {}, then run `brooklet pull {} --accept-terms`",
        manifest.licence_url, manifest.name
    );
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Input(format!(
            "{} has terms that must be agreed to first: {how}",
            manifest.name
        )));
    }
    let _ = write!(io::stderr(), "Do you agree to these terms? [y/N] ");
    let mut answer = String::new();
    // An empty answer is a refusal.
    let _ = io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Input(format!(
            "{} was not fetched, as its terms were not agreed to: {how}",
            manifest.name
        )))
    }
}

/// Writes one line to standard error, which may be closed.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

struct View {
    bar: Option<ProgressBar>,
}

impl View {
    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Stage(name, bytes) => {
                self.end();
                if io::stderr().is_terminal() && !terminal::is_dumb() {
                    self.bar = Some(bar(name, bytes));
                } else if bytes > 0 {
                    say(&format!("{name}: {}", Size(bytes as usize)));
                } else {
                    say(name);
                }
            }
            Event::Bytes(bytes) => self.bar.iter().for_each(|bar| bar.set_position(bytes)),
            Event::Unlocked(error) => say(&format!(
                "the models' folder has no locks ({error}): do not pull a model twice at a time"
            )),
            Event::Failed(error) => {
                self.end();
                tracing::info!(%error, "a source has failed");
                say("not available there: trying the next source");
            }
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, bytes: u64) -> ProgressBar {
    let (bar, template) = if bytes > 0 {
        (
            ProgressBar::new(bytes),
            "{msg} {wide_bar} {bytes}/{total_bytes} {eta}",
        )
    } else {
        (ProgressBar::new_spinner(), "{spinner} {msg} {bytes}")
    };
    // The templates are constants; the default style serves as well.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar
}

/// A bar for a long computation; nothing if standard error is not a terminal.
pub struct Counter(Option<ProgressBar>);

impl Counter {
    /// A bar of `total` steps.
    pub fn new(name: &str, total: usize) -> Counter {
        let can_show = io::stderr().is_terminal() && !terminal::is_dumb();
        Counter(can_show.then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
                bar.set_style(style);
            }
            bar.with_message(name.to_owned())
        }))
    }

    /// Sets the number of steps that are done.
    pub fn set(&self, done: usize) {
        self.0.iter().for_each(|bar| bar.set_position(done as u64));
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}
