//! Models that the integration tests share: a tiny model, and the pulled ones.

use std::path::{Path, PathBuf};

use brooklet::models::manifest::Manifest;
use brooklet::models::store::Store;

/// Path of a random model of 64 KB with a SentencePiece vocabulary of the bytes and a few words,
/// and a trained context of 256 positions.
pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data/random.gguf")
}

/// Returns the path of a pulled model. If it is missing, the test is skipped with a line that names
/// it, or fails with `BROOKLET_REQUIRE_MODELS=1`.
pub fn pulled(name: &str) -> Option<PathBuf> {
    let manifest = Manifest::find(name).expect("a manifest of that name");
    let path = Store::from_environment()
        .filter(|store| store.has(&manifest))
        .map(|store| store.path(&manifest));
    if path.is_none() {
        let required =
            std::env::var_os("BROOKLET_REQUIRE_MODELS").is_some_and(|value| value == "1");
        assert!(
            !required,
            "BROOKLET_REQUIRE_MODELS is set, but {name} has not been pulled"
        );
        println!("skipped: {name} has not been pulled");
    }
    path
}
