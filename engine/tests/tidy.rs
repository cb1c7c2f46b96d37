//! House rules that a program can check: sizes, headers, import edges, where `unsafe` may stand.
//!
//! One function per rule, each with a test that feeds it an offender, so that a rule which stopped
//! looking is noticed.

// A broken rule or an unreadable tree ends the test on the spot.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::Visit;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Files and folders that may hold `unsafe`. The bench's LMDB adapter is there because the binding
/// asks for it.
const UNSAFE_PLACES: [&str; 6] = [
    "wal/src/io/uring",
    "wal/src/io/buffer.rs",
    "btree/src/pool/",
    "btree/src/page/view.rs",
    "vector/src/kernel/",
    "benches/src/kv/lmdb.rs",
];

/// Names that say nothing about what a file holds.
const VAGUE_NAMES: [&str; 6] = ["utils", "common", "types", "misc", "manager", "helper"];

/// Who may import whom: package, then the packages of ours that it may depend on.
const EDGES: [(&str, &[&str]); 8] = [
    ("wal", &[]),
    ("vector", &[]),
    ("btree", &["terrane-wal"]),
    ("shard", &["terrane-wal"]),
    (
        "engine",
        &[
            "terrane-wal",
            "terrane-btree",
            "terrane-vector",
            "terrane-shard",
            "terrane-derive",
        ],
    ),
    ("engine/derive", &[]),
    (
        "fuzz",
        &[
            "terrane",
            "terrane-wal",
            "terrane-btree",
            "terrane-vector",
            "terrane-shard",
        ],
    ),
    (
        "benches",
        &[
            "terrane",
            "terrane-fuzz",
            "terrane-wal",
            "terrane-btree",
            "terrane-vector",
            "terrane-shard",
        ],
    ),
];

/// The checkout that is tested: a build folder that checkouts share may hold a program that another
/// one built.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    package
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
        .parent()
        .expect("engine/ has a parent")
        .to_path_buf()
}

/// Every tracked-looking Rust file: all but build folders.
fn rust_files() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or("")
                .to_string();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, out);
                }
            } else if name.ends_with(".rs") {
                out.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let relative = |p: &Path| {
        p.strip_prefix(&root)
            .expect("below root")
            .display()
            .to_string()
    };
    paths
        .iter()
        .map(|p| (relative(p), fs::read_to_string(p).expect("UTF-8 source")))
        .collect()
}

/// Size, header, width, alphabet, leftovers and names of one file.
fn judge_text(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    if !text.starts_with("//!") {
        faults.push(format!(
            "{path}: does not open with a header that says what it is"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", number + 1);
        if line.chars().count() > COLUMNS_MAX {
            faults.push(format!("{place}: more than {COLUMNS_MAX} columns"));
        }
        if !line.is_ascii() {
            faults.push(format!("{place}: not ASCII"));
        }
        let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("];
        let is_rule = path.ends_with("tests/tidy.rs");
        if !is_rule && marks.iter().any(|m| line.contains(m)) {
            faults.push(format!("{place}: a leftover reminder"));
        }
        if !is_rule && (line.contains("#[ignore") || line.contains("allow(dead_code)")) {
            faults.push(format!("{place}: a test or code that nobody runs"));
        }
    }
    let stem = Path::new(path)
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or("");
    if VAGUE_NAMES.contains(&stem) {
        faults.push(format!("{path}: the name does not say what the file holds"));
    }
    faults
}

/// Lengths of functions, and `unsafe` outside its places.
fn judge_code(path: &str, text: &str) -> Vec<String> {
    struct Walk<'a> {
        path: &'a str,
        faults: Vec<String>,
        may_be_unsafe: bool,
    }
    impl Walk<'_> {
        fn function(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
            let (start, end): (LineColumn, LineColumn) = (span.start(), span.end());
            let lines = end.line + 1 - start.line;
            if lines > FUNCTION_LINES_MAX {
                let path = self.path;
                self.faults.push(format!(
                    "{path}:{}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}",
                    start.line
                ));
            }
        }
        fn meets_unsafe(&mut self, line: usize) {
            if !self.may_be_unsafe {
                self.faults
                    .push(format!("{}:{line}: unsafe outside its places", self.path));
            }
        }
    }
    impl<'ast> Visit<'ast> for Walk<'_> {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.function(&item.sig.ident, item.block.span());
            if item.sig.unsafety.is_some() {
                self.meets_unsafe(item.sig.span().start().line);
            }
            syn::visit::visit_item_fn(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.function(&item.sig.ident, item.block.span());
            if item.sig.unsafety.is_some() {
                self.meets_unsafe(item.sig.span().start().line);
            }
            syn::visit::visit_impl_item_fn(self, item);
        }
        fn visit_expr_unsafe(&mut self, item: &'ast syn::ExprUnsafe) {
            self.meets_unsafe(item.span().start().line);
            syn::visit::visit_expr_unsafe(self, item);
        }
        fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
            if item.unsafety.is_some() {
                self.meets_unsafe(item.span().start().line);
            }
            syn::visit::visit_item_impl(self, item);
        }
    }
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => return vec![format!("{path}: does not parse: {error}")],
    };
    let may_be_unsafe = UNSAFE_PLACES.iter().any(|place| path.starts_with(place));
    let mut walk = Walk {
        path,
        faults: Vec::new(),
        may_be_unsafe,
    };
    walk.visit_file(&file);
    walk.faults
}

/// Packages of ours under `[dependencies]` of a manifest, and rules about its `[[test]]` tables.
fn judge_manifest(package: &str, text: &str, allowed: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_string();
            continue;
        }
        let key = line.split(['=', '.']).next().unwrap_or("").trim();
        let ours = key == "terrane" || key.starts_with("terrane-");
        if section == "dependencies" && ours && !allowed.contains(&key) {
            faults.push(format!("{package} imports {key}, which the layers forbid"));
        }
        if section == "test" && line.starts_with("required-features") {
            faults.push(format!(
                "{package}: a test that plain `cargo test` would leave out"
            ));
        }
    }
    faults
}

#[test]
fn every_file_keeps_the_house_rules() {
    let files = rust_files();
    assert!(files.len() > 12, "only {} Rust files found", files.len());
    let mut faults = Vec::new();
    for (path, text) in &files {
        faults.extend(judge_text(path, text));
        faults.extend(judge_code(path, text));
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn packages_import_only_downwards() {
    let mut faults = Vec::new();
    for (package, allowed) in EDGES {
        let manifest = root().join(package).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("manifest");
        faults.extend(judge_manifest(package, &text, allowed));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_top_level_is_the_agreed_one() {
    let expected: BTreeSet<&str> = [
        "Cargo.toml",
        "Cargo.lock",
        "engine",
        "btree",
        "vector",
        "wal",
        "shard",
        "benches",
        "fuzz",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "clippy.toml",
        "deny.toml",
        "target",
    ]
    .into();
    let mut strangers = Vec::new();
    for entry in fs::read_dir(root()).expect("readable root") {
        let name = entry
            .expect("entry")
            .file_name()
            .into_string()
            .expect("UTF-8 name");
        if !name.starts_with('.') && !expected.contains(name.as_str()) {
            strangers.push(name);
        }
    }
    assert!(
        strangers.is_empty(),
        "not agreed at the top level: {strangers:?}"
    );
}

#[test]
fn the_rules_see_an_offender() {
    let long = "//! x\n".to_string() + &"\n".repeat(FILE_LINES_MAX);
    assert_eq!(judge_text("a.rs", &long).len(), 1);
    assert_eq!(judge_text("a.rs", "fn a() {}\n").len(), 1);
    assert_eq!(judge_text("utils.rs", "//! x\n").len(), 1);
    assert_eq!(judge_text("a.rs", "//! x\n// FIXME later\n").len(), 1);
    assert_eq!(
        judge_text("a.rs", &format!("//! x\n// {}\n", "y".repeat(100))).len(),
        1
    );
    assert_eq!(judge_text("a.rs", "//! \u{e9}\n").len(), 1);
    let body = "x();\n".repeat(FUNCTION_LINES_MAX);
    assert_eq!(
        judge_code("a.rs", &format!("fn f() {{\n{body}}}\n")).len(),
        1
    );
    assert_eq!(
        judge_code("engine/src/a.rs", "fn f() { unsafe { g() } }").len(),
        1
    );
    assert_eq!(
        judge_code("vector/src/kernel/a.rs", "fn f() { unsafe { g() } }").len(),
        0
    );
    let manifest = "[dependencies]\nterrane-btree.workspace = true\n";
    assert_eq!(judge_manifest("wal", manifest, &[]).len(), 1);
    let test = "[[test]]\nname = \"a\"\nrequired-features = [\"sim\"]\n";
    assert_eq!(judge_manifest("wal", test, &[]).len(), 1);
}

#[test]
fn unsafe_blocks_are_counted() {
    let mut count = BTreeMap::new();
    for (path, text) in rust_files() {
        let blocks = text.matches("unsafe {").count() + text.matches("unsafe impl").count();
        if blocks > 0 && !path.ends_with("tests/tidy.rs") {
            count.insert(path, blocks);
        }
    }
    println!("unsafe blocks by file: {count:#?}");
    let total: usize = count.values().sum();
    assert!(
        total <= UNSAFE_BLOCKS_MAX,
        "{total} unsafe blocks, the ratchet is {UNSAFE_BLOCKS_MAX}"
    );
}

/// A ratchet: lower it when blocks go, raise it only with a reason in the commit.
const UNSAFE_BLOCKS_MAX: usize = 120;
