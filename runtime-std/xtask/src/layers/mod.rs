//! The order of each crate's modules, and the imports that break it.
//!
//! The order is the one that a reader sees: the bullets of the section `# Modules` in the docs of a
//! crate's `lib.rs`, lowest first. A module may import only modules that stand before its own name
//! there. Counted are paths through `crate` and `super`, in `use` declarations, in code and in
//! macros. Not counted are modules under `#[cfg(test)]`, since a test may drive a module through a
//! higher one, and `lib.rs` itself, which stands above all.

mod imports;
mod order;
mod svg;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// The crates whose order is checked, lower one first: name and folder.
const CRATES: [(&str, &str); 2] = [("brooklet-core", "core"), ("brooklet", "runtime-std")];

/// One mention of a module in another.
struct Import {
    from: String,
    to: String,
    file: PathBuf,
    line: usize,
}

/// The modules of one crate and their imports.
struct House {
    name: String,
    /// Names by row, lowest first.
    rows: Vec<Vec<String>>,
    imports: Vec<Import>,
    /// Modules that the docs do not list, and the reverse.
    unlisted: Vec<String>,
}

/// Prints the graph of both crates; with `picture`, draws it into that file.
///
/// # Errors
/// If a module imports one that stands after it, or the docs and the modules differ.
pub fn check(root: &Path, picture: Option<&Path>) -> Result<(), Error> {
    let mut houses = Vec::new();
    for (name, folder) in CRATES {
        houses.push(House::read(name, root, &Path::new(folder).join("src"))?);
    }
    for house in &houses {
        say!("{}", house.text());
    }
    if let Some(path) = picture {
        fs::write(path, svg::draw(&houses)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let faults: Vec<String> = houses.iter().flat_map(House::faults).collect();
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    Err(format!("{} faults in the order of modules", faults.len()).into())
}

impl House {
    /// Reads the crate whose `lib.rs` stands in `source` under `root`.
    fn read(name: &str, root: &Path, source: &Path) -> Result<House, Error> {
        let library = fs::read_to_string(root.join(source).join("lib.rs"))
            .map_err(|e| format!("{}/lib.rs: {e}", source.display()))?;
        let rows =
            order::rows(&library).map_err(|e| format!("{}/lib.rs: {e}", source.display()))?;
        let found = imports::of_crate(root, source)?;
        let listed: Vec<&String> = rows.iter().flatten().collect();
        let mut unlisted = Vec::new();
        for module in &found.modules {
            if !listed.contains(&module) {
                unlisted.push(format!(
                    "{}/lib.rs: `{module}` is missing from the list under # Modules",
                    source.display()
                ));
            }
        }
        for (place, module) in listed.iter().enumerate() {
            if !found.modules.contains(module) {
                unlisted.push(format!(
                    "{}/lib.rs: there is no module `{module}`",
                    source.display()
                ));
            }
            if listed[..place].contains(module) {
                unlisted.push(format!(
                    "{}/lib.rs: `{module}` is listed twice",
                    source.display()
                ));
            }
        }
        Ok(House {
            name: name.to_owned(),
            rows,
            imports: found.imports,
            unlisted,
        })
    }

    /// The place of a module in the order.
    fn place(&self, module: &str) -> Option<usize> {
        self.rows.iter().flatten().position(|name| name == module)
    }

    /// Returns true if `import` goes to a module that stands after its own.
    fn is_upward(&self, import: &Import) -> bool {
        match (self.place(&import.from), self.place(&import.to)) {
            (Some(from), Some(to)) => to > from,
            // A name of `lib.rs` itself; modules that are not listed are a fault of their own.
            (Some(_), None) => import.to.starts_with("lib.rs"),
            _ => false,
        }
    }

    fn faults(&self) -> Vec<String> {
        let upward = self.imports.iter().filter(|import| self.is_upward(import));
        let lines = upward.map(|import| {
            format!(
                "{}:{}: `{}` imports `{}`, which stands after it",
                import.file.display(),
                import.line,
                import.from,
                import.to
            )
        });
        let mut faults: Vec<String> = self.unlisted.iter().cloned().chain(lines).collect();
        // One line may name a module more than once.
        faults.dedup();
        faults
    }

    /// Modules that each module imports, in the order of the docs.
    fn graph(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut graph: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for import in &self.imports {
            let to = graph.entry(&import.from).or_default();
            if !to.contains(&import.to.as_str()) {
                to.push(&import.to);
            }
        }
        for to in graph.values_mut() {
            to.sort_by_key(|module| self.place(module));
        }
        graph
    }

    fn text(&self) -> String {
        let graph = self.graph();
        let modules: Vec<&str> = self.rows.iter().flatten().map(String::as_str).collect();
        let width = modules.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut text = format!(
            "{}: {} modules, {} imports among them, lowest first\n",
            self.name,
            modules.len(),
            graph.values().map(Vec::len).sum::<usize>()
        );
        for module in modules {
            let to = graph
                .get(module)
                .map_or_else(String::new, |to| to.join(" "));
            let line = format!("  {module:width$}  {to}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}
