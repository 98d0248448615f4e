//! New files: whole or not there, whatever lies at their place.

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A new file that has a name while it is unfinished, as on file systems without nameless files.
fn create_with_name(place: &Path, replace: bool) -> io::Result<NewFile> {
    let place = resolved(place)?;
    check_place(&place, replace)?;
    remove_stale(&place);
    let (file, unfinished) = create_named(&place)?;
    Ok(NewFile {
        file,
        unfinished: Some(unfinished),
        place,
        replace,
    })
}

type Create = fn(&Path, bool) -> io::Result<NewFile>;

const BOTH: [Create; 2] = [NewFile::create, create_with_name];

fn refused(result: io::Result<NewFile>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn the_name_appears_with_the_whole_file() {
    for create in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let mut file = create(&place, false).unwrap();
        file.write_all(b"weights").unwrap();
        assert!(!place.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"weights");
        assert_eq!(names(folder.path()), ["model"]);
    }
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    for create in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let mut file = create(&folder.path().join("model"), false).unwrap();
        file.write_all(b"wei").unwrap();
        drop(file);
        assert!(names(folder.path()).is_empty());
    }
}

#[test]
fn a_file_is_replaced_only_on_request_and_a_folder_never() {
    for create in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let early = create(&place, false).unwrap();
        fs::write(&place, b"old").unwrap();
        assert_eq!(refused(create(&place, false)), io::ErrorKind::AlreadyExists);
        // It came there in the meantime.
        assert_eq!(
            early.finish().unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&place).unwrap(), b"old");
        create(&place, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"");
        for name in [folder.path().to_path_buf(), folder.path().join("new/")] {
            assert_eq!(refused(create(&name, true)), io::ErrorKind::IsADirectory);
        }
        let error = create(&folder.path().join("a/b"), true).unwrap_err();
        assert!(
            error.to_string().starts_with("there is no folder"),
            "{error}"
        );
        assert_eq!(names(folder.path()), ["model"]);
    }
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    for create in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let mut files = [1, 2].map(|_| create(&place, true).unwrap());
        for (file, text) in files.iter_mut().zip([b"first ", b"second"]) {
            file.write_all(text).unwrap();
        }
        for (file, text) in files.into_iter().zip([b"first ", b"second"]) {
            file.finish().unwrap();
            assert_eq!(fs::read(&place).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["model"]);
    }
}

#[test]
fn what_killed_processes_have_left_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("model");
    // No process has a number this large.
    for name in [
        ".model.4294967295.partial",
        ".model.x.partial",
        ".model.1.partial",
        ".model2.4294967295.partial",
    ] {
        fs::write(folder.path().join(name), b"half").unwrap();
    }
    let locked = folder.path().join(".model.4294967294.partial");
    let held = File::create(&locked).unwrap();
    held.lock().unwrap();
    NewFile::create(&place, false).unwrap().finish().unwrap();
    let mut left = vec![
        ".model.4294967294.partial",
        ".model.x.partial",
        ".model2.4294967295.partial",
        "model",
    ];
    // Process 1 is always there, where processes can be looked up.
    if Path::new("/proc/1").exists() {
        left.insert(0, ".model.1.partial");
    }
    left.sort();
    assert_eq!(names(folder.path()), left);
}

#[test]
fn a_long_name_is_no_obstacle() {
    for create in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let name = "\u{e4}".repeat(127);
        let mut file = create(&folder.path().join(&name), true).unwrap();
        file.write_all(b"weights").unwrap();
        file.finish().unwrap();
        assert_eq!(names(folder.path()), [name]);
    }
}

#[test]
fn a_file_can_grow_in_its_place() {
    for create in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("record");
        fs::write(&place, b"old").unwrap();
        let file = create(&place, true).unwrap();
        let mut file = file.grow_in_place().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"");
        file.write_all(b"line").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"line");
        assert_eq!(names(folder.path()), ["record"]);
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_are_followed_and_stay() {
        for create in BOTH {
            let folder = tempfile::tempdir().unwrap();
            let inner = folder.path().join("inner");
            fs::create_dir(&inner).unwrap();
            symlink("inner/model", folder.path().join("near")).unwrap();
            symlink("near", folder.path().join("far")).unwrap();
            let far = folder.path().join("far");
            // First to nothing, then to a file.
            for text in [b"first ", b"second"] {
                let mut file = create(&far, true).unwrap();
                file.write_all(text).unwrap();
                file.finish().unwrap();
                assert_eq!(fs::read(inner.join("model")).unwrap(), text);
                assert_eq!(names(folder.path()), ["far", "inner", "near"]);
                assert_eq!(names(&inner), ["model"]);
                assert!(far.is_symlink());
            }
            assert_eq!(refused(create(&far, false)), io::ErrorKind::AlreadyExists);
            symlink("round", folder.path().join("round")).unwrap();
            assert!(create(&folder.path().join("round"), true).is_err());
        }
    }

    #[test]
    fn devices_pipes_and_sockets_are_refused_through_links_too() {
        let folder = tempfile::tempdir().unwrap();
        let link = |name: &str, to: &str| {
            let path = folder.path().join(name);
            symlink(to, &path).unwrap();
            path
        };
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let mut cases = vec![
            ("/dev/null".into(), "a device"),
            (link("device", "/dev/null"), "a device"),
            (socket, "a socket"),
        ];
        if Path::new("/proc/self/fd").exists() {
            cases.push((link("pipe", &pipe), "a pipe"));
            cases.push((pipe.into(), "a pipe"));
        }
        for (path, what) in cases {
            for replace in [false, true] {
                let error = NewFile::create(&path, replace).unwrap_err().to_string();
                assert_eq!(
                    error,
                    format!("it is {what}, not a file that can be replaced")
                );
            }
        }
    }

    #[test]
    fn a_file_keeps_the_rights_of_the_one_that_it_replaces() {
        for create in BOTH {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("model");
            fs::write(&place, b"old").unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).unwrap();
            create(&place, true).unwrap().finish().unwrap();
            let mode = fs::metadata(&place).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640);
        }
    }
}
