//! Habits kept by code: what rustfmt and clippy do not look at, checked over every source file.
//!
//! Each rule is a function from a file to findings, with a test that shows it can fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest line, in characters. A line with a link may be longer.
const MAX_COLUMNS: usize = 100;
/// Most lines of a file that is not in [`LONG_FILES`].
const MAX_LINES: usize = 500;
/// Files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] =
    &[("runtime/tests/executor/worker.rs", "one worker that keeps books, read from top to bottom")];
/// Names that say nothing, or that mean something else here.
const VAGUE_NAMES: &[&str] =
    &["base", "common", "helper", "helpers", "manager", "misc", "node", "util", "utils"];
/// Folders with sources.
const SOURCES: &[&str] = &["scheduler", "runtime", "workloads", "cli"];

/// One source file.
struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

/// What is wrong, as `path:line: what`.
type Findings = Vec<String>;

#[test]
fn the_sources_are_tidy() {
    let sources = sources();
    assert!(sources.len() > 20, "only {} sources found: wrong folder?", sources.len());
    let mut findings = Findings::new();
    for source in &sources {
        findings.extend(columns(source));
        findings.extend(left_overs(source));
        findings.extend(unwraps(source));
        findings.extend(vague_names(source));
    }
    findings.extend(long_files(&sources, LONG_FILES));
    findings.extend(unreachable_files(&sources));
    assert!(findings.is_empty(), "not tidy:\n{}", findings.join("\n"));
}

/// All `.rs` files of the repository.
fn sources() -> Vec<Source> {
    let root = crate::repository();
    let mut paths = Vec::new();
    for folder in SOURCES {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let source = |path: PathBuf| {
        let relative = path.strip_prefix(&root).expect("below the root");
        let text = fs::read_to_string(&path).expect("sources are readable UTF-8");
        Source { path: relative.to_string_lossy().replace('\\', "/"), text }
    };
    paths.into_iter().map(source).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("source folders are readable") {
        let path = entry.expect("source folders are readable").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// No line beyond [`MAX_COLUMNS`]: rustfmt leaves long strings and comments as they are.
fn columns(source: &Source) -> Findings {
    let long = |line: &str| line.chars().count() > MAX_COLUMNS && !line.contains("://");
    let lines = source.text.lines().enumerate().filter(|(_, line)| long(line));
    lines
        .map(|(at, _)| format!("{}:{}: more than {MAX_COLUMNS} columns", source.path, at + 1))
        .collect()
}

/// No traces of work that is not finished, in tests neither.
fn left_overs(source: &Source) -> Findings {
    let traces = [("dbg", "!("), ("todo", "!("), ("unimplemented", "!("), ("FIX", "ME")]
        .map(|(start, end)| format!("{start}{end}"));
    let mut findings = Findings::new();
    for (at, line) in source.text.lines().enumerate() {
        for trace in traces.iter().filter(|trace| line.contains(trace.as_str())) {
            findings.push(format!("{}:{}: `{trace}` is left over", source.path, at + 1));
        }
    }
    findings
}

/// No `unwrap()` outside of tests: input gets an error, a broken invariant an `expect` that
/// names it.
fn unwraps(source: &Source) -> Findings {
    if is_test_file(&source.path) {
        return Findings::new();
    }
    let call = concat!(".unw", "rap()");
    let code = |line: &str| line.split("//").next().unwrap_or_default().contains(call);
    outside_tests(&source.text)
        .filter(|(_, line)| code(line))
        .map(|(at, _)| format!("{}:{}: `{call}` outside of tests", source.path, at + 1))
        .collect()
}

/// Tests, benchmarks, examples: users read examples, but a failing one may panic.
fn is_test_file(path: &str) -> bool {
    let folder = |name: &str| path.split('/').any(|part| part == name);
    folder("tests")
        || folder("benches")
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
}

/// Lines with their numbers, without the items under `#[cfg(test)]`.
fn outside_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut closing: Option<String> = None;
    let mut starts = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let indent = &line[..line.len() - line.trim_start().len()];
        if let Some(end) = &closing {
            if line.starts_with(end.as_str()) {
                closing = None;
            }
            return false;
        }
        if line.trim_start().starts_with("#[cfg(test)]") {
            starts = true;
            return false;
        }
        if starts && !line.trim_start().starts_with("#[") {
            starts = false;
            if line.trim_end().ends_with('{') {
                closing = Some(format!("{indent}}}"));
            }
            return false;
        }
        !starts
    })
}

/// Files beyond [`MAX_LINES`] are listed with a reason, and the list holds no others.
fn long_files(sources: &[Source], listed: &[(&str, &str)]) -> Findings {
    let mut findings = Findings::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines > MAX_LINES && !listed.iter().any(|(path, _)| *path == source.path) {
            findings.push(format!("{}: {lines} lines: split it, or list it", source.path));
        }
    }
    for (path, reason) in listed {
        let source = sources.iter().find(|source| source.path == *path);
        let long = source.is_some_and(|source| source.text.lines().count() > MAX_LINES);
        if !long || reason.is_empty() {
            findings.push(format!("{path}: listed as long, but it is not, or nothing says why"));
        }
    }
    findings
}

/// Neither files, nor folders, nor modules inside of files bear [`VAGUE_NAMES`].
fn vague_names(source: &Source) -> Findings {
    let mut findings = Findings::new();
    let stem = source.path.trim_end_matches(".rs");
    for part in stem.split('/').filter(|part| VAGUE_NAMES.contains(part)) {
        findings.push(format!("{}: `{part}` is no name for a module", source.path));
    }
    for (at, line) in source.text.lines().enumerate() {
        if module_name(line).is_some_and(|name| VAGUE_NAMES.contains(&name)) {
            findings.push(format!("{}:{}: no name for a module", source.path, at + 1));
        }
    }
    findings
}

/// The module that a line declares.
fn module_name(line: &str) -> Option<&str> {
    let declaration = line.trim_start();
    let after = match declaration.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => declaration,
    };
    let name = after.strip_prefix("mod ")?;
    name.split([';', ' ', '{']).next()
}

/// Every file below a `src`, and every file in a folder below `tests`, is declared as a module
/// by the file that its place belongs to: no dead files.
fn unreachable_files(sources: &[Source]) -> Findings {
    let declared: BTreeSet<String> = sources.iter().flat_map(declared_paths).collect();
    let is_root = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let folder = path.rsplit('/').nth(1).unwrap_or_default();
        matches!(name, "main.rs" | "lib.rs" | "build.rs")
            || matches!(
                folder,
                "bin"
                    | "tests"
                    | "examples"
                    | "benches"
                    | "ui"
                    | "pass"
                    | "fail"
                    | "programs"
                    | "fuzz_targets"
            )
    };
    sources
        .iter()
        .filter(|source| !is_root(&source.path) && !declared.contains(&source.path))
        .map(|source| format!("{}: no module declares it", source.path))
        .collect()
}

/// Paths at which the modules that a file declares may lie.
fn declared_paths(source: &Source) -> Vec<String> {
    let (folder, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = name.trim_end_matches(".rs");
    let own = format!("{folder}/{stem}");
    let is_root = matches!(stem, "main" | "lib" | "mod" | "build")
        || folder
            .rsplit('/')
            .next()
            .is_some_and(|last| matches!(last, "bin" | "tests" | "examples" | "benches"));
    let below = if is_root { folder } else { own.as_str() };
    let mut paths = Vec::new();
    for line in source.text.lines() {
        if let Some(given) = line.trim().strip_prefix("#[path = \"") {
            paths.push(format!("{folder}/{}", given.trim_end_matches("\"]")));
        } else if let Some(module) = module_name(line) {
            paths.push(format!("{below}/{module}.rs"));
            paths.push(format!("{below}/{module}/mod.rs"));
        }
    }
    paths
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

#[test]
fn a_long_line_is_found_unless_it_holds_a_link() {
    let long = "x".repeat(MAX_COLUMNS + 1);
    assert_eq!(columns(&source("a.rs", &format!("short\n{long}\n"))).len(), 1);
    assert!(columns(&source("a.rs", &"x".repeat(MAX_COLUMNS))).is_empty());
    assert!(columns(&source("a.rs", &format!("// https://example.org/{long}"))).is_empty());
}

#[test]
fn left_overs_are_found() {
    let text = ["fn f() { to", "do!() }\n fn g() { d", "bg!(1); }"].concat();
    assert_eq!(left_overs(&source("a.rs", &text)).len(), 2);
    assert!(left_overs(&source("a.rs", "fn todo() {}")).is_empty());
}

#[test]
fn an_unwrap_is_found_outside_of_tests_only() {
    let text = "fn f() { a.@(); }\n\
                // a.@()\n\
                #[cfg(test)]\n\
                #[allow(x)]\n\
                mod tests {\n    fn g() { a.@(); }\n}\n\
                #[cfg(test)]\nmod more;\n\
                fn h() { a.@(); }\n"
        .replace('@', concat!("unw", "rap"));
    let findings = unwraps(&source("x/src/a.rs", &text));
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings[0].starts_with("x/src/a.rs:1:") && findings[1].starts_with("x/src/a.rs:10:"));
    assert!(unwraps(&source("x/tests/a.rs", &text)).is_empty());
    assert!(unwraps(&source("x/src/a/tests.rs", &text)).is_empty());
}

#[test]
fn a_long_file_is_listed_with_a_reason_and_only_then() {
    let long = "\n".repeat(MAX_LINES + 1);
    let sources = [source("long.rs", &long), source("short.rs", "")];
    assert_eq!(long_files(&sources, &[]).len(), 1);
    assert!(long_files(&sources, &[("long.rs", "one table")]).is_empty());
    assert_eq!(long_files(&sources, &[("long.rs", "")]).len(), 1);
    assert_eq!(long_files(&sources, &[("long.rs", "why"), ("short.rs", "why")]).len(), 1);
    assert_eq!(long_files(&sources, &[("long.rs", "why"), ("gone.rs", "why")]).len(), 1);
}

#[test]
fn vague_names_are_found_in_paths_and_declarations() {
    assert_eq!(vague_names(&source("x/src/util.rs", "")).len(), 1);
    assert_eq!(vague_names(&source("x/src/common/mod.rs", "")).len(), 1);
    assert_eq!(vague_names(&source("x/src/a.rs", "pub(crate) mod helper {")).len(), 1);
    assert!(vague_names(&source("x/src/utility_bill.rs", "mod nodes;")).is_empty());
}

#[test]
fn a_file_that_nobody_declares_is_found() {
    let sources = [
        source("x/src/lib.rs", "pub mod a;\nmod b;"),
        source("x/src/a.rs", "mod inner;"),
        source("x/src/a/inner.rs", ""),
        source("x/src/b/mod.rs", "#[path = \"far.rs\"]\nmod other;"),
        source("x/src/b/far.rs", ""),
        source("x/src/dead.rs", ""),
        source("x/tests/case.rs", "mod shared;"),
        source("x/tests/shared/mod.rs", ""),
        source("x/tests/shared/dead.rs", ""),
    ];
    let findings = unreachable_files(&sources);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings[0].contains("src/dead.rs") && findings[1].contains("shared/dead.rs"));
}
