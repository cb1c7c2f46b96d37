//! Rows 1 to 6, 8 to 15, 17, 18, 81 and 86: paths, locks, options, and what the kernel refuses.
//!
//! Seen to fail with an error of the lock that does not name its owner.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use terrane::{Create, Database, Durability, ErrorKind, Io};

use crate::{Made, OTHER, ROWS, assert_usable, builder, refused, skipped, value};

#[test]
fn row_01_a_path_that_is_none() {
    let long = "x".repeat(5000);
    for path in ["", "a\0b", &long] {
        refused(
            Database::open(path),
            ErrorKind::Invalid,
            &["a path", "bytes="],
        );
    }
    assert!(!Path::new("a").exists());
}

#[test]
fn row_02_something_else_at_the_path() {
    let made = Made::empty();
    let path = made.dir();
    fs::write(&path, "text").unwrap();
    refused(
        Database::open(&path),
        ErrorKind::Invalid,
        &["directory", "path="],
    );
    assert_eq!(fs::read(&path).unwrap(), b"text");
    refused(
        Database::open("/dev/null"),
        ErrorKind::Invalid,
        &["/dev/null"],
    );
    let socket = made.folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused(Database::open(&socket), ErrorKind::Invalid, &["socket"]);
    let foreign = made.folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear").unwrap();
    refused(
        Database::open(&foreign),
        ErrorKind::Invalid,
        &["letter.txt"],
    );
    let names = fs::read_dir(&foreign).unwrap().count();
    assert_eq!(names, 1, "nothing was put beside the foreign file");
}

#[test]
fn row_03_a_missing_parent() {
    let made = Made::empty();
    let path = made.folder.path().join("no/db");
    refused(
        Database::open(&path),
        ErrorKind::NotFound,
        &["parent", "/no"],
    );
    assert!(!made.folder.path().join("no").exists());
}

#[test]
fn row_04_create_where_one_is() {
    let made = Made::new();
    let before = made.bytes();
    let new = builder().create(Create::New).open(made.dir());
    refused(new, ErrorKind::Exists, &["path="]);
    assert_eq!(made.bytes(), before);
}

#[test]
fn row_05_open_where_none_is() {
    let made = Made::empty();
    refused(made.open(), ErrorKind::NotFound, &["path="]);
    assert!(!made.dir().exists());
    let read = builder().read_only(true).open(made.dir());
    refused(read, ErrorKind::NotFound, &["path="]);
    assert!(!made.dir().exists());
    // A directory with a lock alone counts as not created (row 64).
    fs::create_dir(made.dir()).unwrap();
    fs::write(made.dir().join("LOCK"), "").unwrap();
    refused(made.open(), ErrorKind::NotFound, &["path="]);
    Database::open(made.dir()).unwrap();
}

/// Runs this program again, as another process in the given role on the directory.
fn role(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "open::child", "--nocapture"])
        .env("BAD_INPUT_ROLE", name)
        .env("BAD_INPUT_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// What a role prints about an outcome, so that its parent can judge it.
fn told<T>(outcome: terrane::Result<T>) {
    match outcome {
        Ok(_) => println!("role: ok"),
        Err(error) => println!("role: {error}"),
    }
}

/// The other processes of these tests: does nothing unless it was started in a role.
#[test]
fn child() {
    let (Ok(role), Ok(dir)) = (
        std::env::var("BAD_INPUT_ROLE"),
        std::env::var("BAD_INPUT_DIR"),
    ) else {
        return;
    };
    match role.as_str() {
        "hold" => {
            let db = Database::open(&dir).unwrap();
            println!("role: held");
            let _ = std::io::stdin().read(&mut [0]);
            drop(db);
        }
        "open" => told(builder().create(Create::Never).open(&dir)),
        "read" => {
            let db = builder()
                .create(Create::Never)
                .read_only(true)
                .open(&dir)
                .unwrap();
            let other = db.table(OTHER).unwrap();
            assert_eq!(other.get(&db.snapshot(), 3).unwrap(), Some(21));
            told(db.write(|tx| other.put(tx, 3, &1)));
        }
        "fill" => {
            let db = builder().open(&dir).unwrap();
            let rows = db.table(ROWS).unwrap();
            for key in 0.. {
                if let Err(error) = db.write(|tx| rows.put(tx, key, &vec![7; 60_000])) {
                    println!("role: {error}");
                    println!("role: {key} rows");
                    rows.get(&db.snapshot(), 0).unwrap().unwrap();
                    break;
                }
            }
        }
        other => panic!("no role {other}"),
    }
}

/// What the process in its role printed.
fn answer(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    // The harness prints the name of the test in front, on the same line.
    let lines = text
        .lines()
        .filter_map(|line| Some(line.split_once("role: ")?.1));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn row_06_a_directory_that_takes_no_writes() {
    let made = Made::new();
    let before = made.bytes();
    let Some(run) = as_nobody(&made, "row 6", 0o555, 0o444) else {
        return;
    };
    let text = run("open");
    assert!(
        text.starts_with("read only:") && text.contains("path="),
        "{text}"
    );
    let text = run("read");
    assert!(text.starts_with("read only:"), "{text}");
    assert_eq!(made.bytes(), before);
}

#[test]
fn row_08_no_permission() {
    let made = Made::new();
    let Some(run) = as_nobody(&made, "row 8", 0o755, 0o644) else {
        return;
    };
    fs::set_permissions(made.dir().join("META"), fs::Permissions::from_mode(0o000)).unwrap();
    let text = run("read_meta");
    assert!(text.is_empty() || text.contains("META"), "{text}");
    fs::set_permissions(made.dir(), fs::Permissions::from_mode(0o000)).unwrap();
    let text = run("open");
    assert!(text.starts_with("io:") && text.contains("path="), "{text}");
    fs::set_permissions(made.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(made.dir().join("META"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_usable(&made.open().unwrap());
}

/// A way to run roles on the directory as a user who owns nothing, after its modes were set. None,
/// told aloud, where this user can neither be refused nor become another one.
fn as_nobody<'a>(
    made: &'a Made,
    row: &'static str,
    dir_mode: u32,
    file_mode: u32,
) -> Option<impl Fn(&str) -> String + 'a> {
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(made.folder.path(), 0o755);
    // The program itself may lie where nobody can reach it.
    let program = made.folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let mut dirs = vec![made.dir()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                mode(&path, file_mode);
            }
        }
        mode(&dir, dir_mode);
    }
    let command = move |name: &str| {
        let mut command = Command::new(&program);
        command
            .args(["--exact", "open::child", "--nocapture"])
            .env("BAD_INPUT_ROLE", name)
            .env("BAD_INPUT_DIR", made.dir())
            .current_dir("/")
            .stdout(Stdio::piped());
        if fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
        {
            command.uid(65_534).gid(65_534);
        }
        command
    };
    let mut probe = command("none");
    probe.env_remove("BAD_INPUT_ROLE");
    match probe.output() {
        Ok(output) if output.status.success() => {}
        _ => {
            skipped(row, "no other user can run this program here");
            return None;
        }
    }
    Some(move |name: &str| {
        if name == "read_meta" {
            return String::new();
        }
        answer(command(name).spawn().unwrap())
    })
}

#[test]
fn row_09_held_by_another_process() {
    let made = Made::new();
    let mut holder = role("hold", &made.dir()).spawn().unwrap();
    let mut seen = String::new();
    let mut out = holder.stdout.take().unwrap();
    while !seen.contains("role: held") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{seen}");
        seen.push(byte[0] as char);
    }
    let owner = format!("owner_pid={}", holder.id());
    let parts = ["path=", owner.as_str()];
    refused(made.open(), ErrorKind::Locked, &parts);
    refused(terrane::check(made.dir()), ErrorKind::Locked, &parts);
    holder.stdin.take().unwrap().write_all(b"x").unwrap();
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert!(holder.wait().unwrap().success());
    assert_usable(&made.open().unwrap());
}

#[test]
fn row_10_opened_twice() {
    let made = Made::new();
    let db = made.open().unwrap();
    refused(made.open(), ErrorKind::Locked, &["path="]);
    let link = made.folder.path().join("link");
    symlink(made.dir(), &link).unwrap();
    refused(builder().open(&link), ErrorKind::Locked, &["link"]);
    let round = made.dir().join("log/..");
    refused(builder().open(&round), ErrorKind::Locked, &[]);
    assert_usable(&db);
    db.close().unwrap();
    assert_usable(&builder().open(&link).unwrap());
}

#[test]
fn row_11_a_forked_child() {
    let made = Made::new();
    let db = made.open().unwrap();
    let other = db.table(OTHER).unwrap();
    let before = made.bytes();
    let (child, tx) = (db.as_in_a_fork(true), db.begin());
    let parts = ["forked", "opened_by", "used_by"];
    refused(other.get(&child.snapshot(), 3), ErrorKind::Closed, &parts);
    refused(
        child.write(|tx| other.put(tx, 3, &0)),
        ErrorKind::Closed,
        &parts,
    );
    refused(tx.commit(), ErrorKind::Closed, &parts);
    assert_eq!(made.bytes(), before, "the child changed nothing");
    db.as_in_a_fork(false);
    assert_usable(&db);
}

#[test]
fn row_12_page_sizes_that_are_none() {
    let made = Made::empty();
    for bytes in [0, 1, 4096, 8191, 12_288, 65_536, usize::MAX] {
        let open = builder().page_bytes(bytes).open(made.dir());
        refused(
            open,
            ErrorKind::Invalid,
            &["page_bytes", "8192, 16384 or 32768"],
        );
    }
    assert!(!made.dir().exists());
}

#[test]
fn row_13_another_page_size_than_the_trees() {
    let made = Made::new();
    let db = builder().page_bytes(16_384).open(made.dir()).unwrap();
    let parts = ["page_bytes", "16384", "8192", "rows"];
    refused(db.table(ROWS), ErrorKind::Invalid, &parts);
    db.close().unwrap();
    let db = builder().page_bytes(8192).open(made.dir()).unwrap();
    db.table(ROWS).unwrap();
    assert_usable(&db);
}

#[test]
fn rows_14_15_17_numbers_out_of_range() {
    let made = Made::empty();
    let refused = |open: terrane::Builder, option: &str| {
        let parts = [option, "given=", "allowed="];
        refused(open.open(made.dir()), ErrorKind::Invalid, &parts);
        assert!(!made.dir().exists());
    };
    for bytes in [0, 1, (4 << 20) - 1, usize::MAX] {
        refused(Database::builder().memory_bytes(bytes), "memory_bytes");
    }
    for bytes in [
        0,
        4096,
        (256 << 10) - 4096,
        (256 << 10) + 1,
        (1 << 30) + 4096,
        u64::MAX,
    ] {
        refused(Database::builder().segment_bytes(bytes), "segment_bytes");
    }
    for secs in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        refused(Database::builder().reopen_secs(secs), "reopen_secs");
    }
    for keys in [0, usize::MAX] {
        refused(Database::builder().commit_keys(keys), "commit_keys");
        refused(Database::builder().commit_bytes(keys), "commit_bytes");
        refused(Database::builder().version_bytes(keys), "version_bytes");
    }
}

#[test]
fn row_18_a_weaker_or_missing_durability() {
    let made = Made::new();
    let open = builder()
        .durability(Durability::Replicated)
        .open(made.dir());
    refused(open, ErrorKind::Invalid, &["Replicated", "Buffered, Local"]);
    let db = made.open().unwrap();
    let other = db.table(OTHER).unwrap();
    for durability in [Durability::Buffered, Durability::Replicated] {
        let writer = db.writer().durability(durability);
        let write = writer.run(|tx| other.put(tx, 3, &0));
        refused(write, ErrorKind::Invalid, &["durability"]);
    }
    assert_eq!(other.get(&db.snapshot(), 3).unwrap(), Some(21));
    assert_usable(&db);
}

#[test]
fn row_81_a_file_size_limit() {
    let made = Made::empty();
    // 1 MiB in blocks of 512 bytes; SIGXFSZ ignored, as the documentation asks of a program.
    let exe = std::env::current_exe().unwrap();
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(exe)
        .args(["--exact", "open::child", "--nocapture"])
        .env("BAD_INPUT_ROLE", "fill")
        .env("BAD_INPUT_DIR", made.dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = answer(child);
    assert!(text.starts_with("full:"), "{text}");
    let rows: u64 = text
        .lines()
        .find_map(|line| line.strip_suffix(" rows")?.parse().ok())
        .unwrap();
    let db = made.open().unwrap();
    let table = db.table(ROWS).unwrap();
    assert_eq!(table.count(&db.snapshot()).unwrap(), rows);
    db.write(|tx| table.put(tx, rows, &value(rows, 0))).unwrap();
}

#[test]
fn row_86_no_file_descriptors() {
    let made = Made::new();
    let before = made.bytes();
    let exe = std::env::current_exe().unwrap();
    let run = |limit: u32| {
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
            .arg(&exe)
            .args(["--exact", "open::child", "--nocapture"])
            .env("BAD_INPUT_ROLE", "open")
            .env("BAD_INPUT_DIR", made.dir())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        answer(child)
    };
    let mut refusals = 0;
    for limit in 5..14 {
        match run(limit).as_str() {
            "ok" => break,
            text => {
                assert!(text.starts_with("io:"), "{text}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 2, "{refusals} opens met the limit");
    if refusals == 9 {
        assert_eq!(made.bytes(), before);
    }
    assert_usable(&made.open().unwrap());
}

#[test]
fn row_84_a_ring_that_is_not_granted() {
    // The pool of threads serves the same database; where the kernel refuses a ring, the choice is
    // made at open and told once.
    let made = Made::new();
    for io in [Io::Pool, Io::Auto] {
        let db = builder().io(io).open(made.dir()).unwrap();
        let backend = format!("{:?}", db.stats().backend);
        match (io, backend.as_str()) {
            (Io::Pool, name) => assert_eq!(name, "Pool"),
            (_, "Uring") => assert_eq!(db.notices(), [""; 0]),
            (_, _) => assert_eq!(db.notices().len(), 1, "a fall back is told"),
        }
        made.fill(&db, 0..MANY_ROWS, 3);
        db.checkpoint().unwrap();
        assert_usable(&db);
        db.close().unwrap();
    }
    let ring = builder().io(Io::Ring).open(made.dir());
    match ring {
        Ok(db) => assert_usable(&db),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error:?}"),
    }
}

// In a process of its own: the variable is read once.
#[test]
fn row_84_kernels_that_are_not_there() {
    let name = "TERRANE_KERNELS";
    if std::env::var_os(name).is_some_and(|value| value == "sse9") {
        let parts = [name, "scalar, neon, avx2 or avx512"];
        refused(
            builder().open(Made::empty().dir()),
            ErrorKind::Invalid,
            &parts,
        );
        return;
    }
    let test = "open::row_84_kernels_that_are_not_there";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", test]).env(name, "sse9");
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

const MANY_ROWS: u64 = crate::MANY;
