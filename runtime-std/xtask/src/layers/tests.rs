//! The check on small trees made for it: what it must accept, and upward imports of every form,
//! which it must find.

use std::fs;
use std::path::Path;

use super::{House, svg};

const LIBRARY: &str = "//! A crate.
//!
//! # Modules, lowest first
//!
//! - [`ground`], `hidden`: text that
//!   goes on: [`roof`].
//! - [`walls`]: the second row.
//! - [`roof`]: the third.
//!
//! # More
//!
//! - [`other`]: no module.
pub mod ground;
mod hidden;
pub mod walls { pub mod inner { use super::super::ground::Stone; } }
pub mod roof;
pub use roof::{Tile as Slate, Ridge};
";

/// The crate of [`LIBRARY`] with `ground.rs` as given, and a roof that imports all in every form.
fn house(library: &str, ground: &str) -> House {
    let root = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = root.path().join("src").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    write("lib.rs", library);
    write("ground.rs", ground);
    write("hidden/mod.rs", "mod deep;\n#[cfg(test)]\nmod tests;\n");
    write(
        "hidden/deep.rs",
        "use crate::ground::Stone;\nuse super::super::{ground::{self, Stone as Rock}};\n",
    );
    write(
        "roof.rs",
        "use crate::{ground::Stone, walls::{self, inner}};\nfn f() { crate::hidden::f() }\n",
    );
    House::read("fixture", root.path(), Path::new("src")).expect("read")
}

/// The faults of the crate with this `ground.rs`.
fn faults(ground: &str) -> Vec<String> {
    house(LIBRARY, ground).faults()
}

#[test]
fn downward_imports_are_no_fault() {
    let house = house(
        LIBRARY,
        "//! No import: crate::roof.\n/* use crate::roof; */ const A: &str = \"use crate::roof;\";\n",
    );
    assert_eq!(house.faults(), [""; 0]);
    assert_eq!(
        house.text(),
        "fixture: 4 modules, 5 imports among them, lowest first\n  ground\n  hidden  ground\n  walls   ground\n  roof    ground hidden walls\n"
    );
}

#[test]
fn upward_imports_of_every_form_are_found() {
    let roof = ["src/ground.rs:2: `ground` imports `roof`, which stands after it"];
    for line in [
        "use crate::roof;",
        "use crate::roof::Tile;",
        "pub use crate::{walls_of_nothing, roof::{Tile, Ridge as R}};",
        "use crate::{\nroof};",
        "use super::roof::*;",
        "fn f() { use crate::roof as r; }",
        "fn f() -> crate::roof::Tile { todo() }",
        "fn f() { let _ = vec![super::roof::TILE]; }",
        "macro_rules! m { () => { $crate::roof::TILE } }",
        "mod inner { use super::super::roof; }",
        "use crate::Slate;",
        "impl crate::Ridge {}",
    ] {
        let found = faults(&format!("//! A header.\n{line}\n"));
        let found: Vec<String> = found
            .into_iter()
            .filter(|fault| !fault.contains("walls_of_nothing"))
            .map(|fault| fault.replace("rs:3:", "rs:2:"))
            .collect();
        assert_eq!(found, roof, "{line}");
    }
}

#[test]
fn a_neighbour_of_the_same_row_that_stands_later_is_above() {
    let found = faults("use crate::hidden::Secret;");
    assert_eq!(
        found,
        ["src/ground.rs:1: `ground` imports `hidden`, which stands after it"]
    );
}

#[test]
fn names_of_the_library_file_stand_above_all() {
    assert_eq!(
        faults("use crate::Version;"),
        ["src/ground.rs:1: `ground` imports `lib.rs: Version`, which stands after it"]
    );
}

#[test]
fn tests_may_import_all() {
    let ground = "#[cfg(test)]\nuse crate::roof;\n#[cfg(test)]\nmod tests { use crate::roof; }\n#[cfg(all(test, unix))] mod more;\n";
    assert_eq!(faults(ground), [""; 0]);
}

#[test]
fn the_docs_name_all_modules_and_no_others() {
    let other = LIBRARY.replace("[`walls`]", "[`wells`], [`roof`]");
    assert_eq!(
        house(&other, "").faults(),
        [
            "src/lib.rs: `walls` is missing from the list under # Modules",
            "src/lib.rs: there is no module `wells`",
            "src/lib.rs: `roof` is listed twice"
        ]
    );
    let root = tempfile::tempdir().expect("a temporary folder");
    for (library, error) in [
        (
            "//! A crate.\n",
            "src/lib.rs: no section `# Modules` in the docs",
        ),
        (
            "//! # Modules\n//! - words: text\n",
            "src/lib.rs: `- words: text` does not open with names of modules and a colon",
        ),
    ] {
        fs::create_dir_all(root.path().join("src")).expect("made");
        fs::write(root.path().join("src/lib.rs"), library).expect("written");
        let read = House::read("fixture", root.path(), Path::new("src"));
        assert_eq!(read.err().map(|e| e.to_string()).as_deref(), Some(error));
    }
}

#[test]
fn the_picture_leaves_out_what_follows() {
    let picture = svg::draw(&[house(LIBRARY, "use crate::walls;")]);
    // Of roof's three imports, ground follows from both others.
    assert_eq!(picture.matches("marker-end").count(), 5, "{picture}");
    assert_eq!(picture.matches("#c00").count(), 1);
    assert_eq!(picture.matches("text-anchor").count(), 4);
}
