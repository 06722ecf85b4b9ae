//! Reads the whole tree and fails where it breaks the house rules that no other tool holds.
//!
//! Invariant: every rule is a function from text to findings, and has a test with a planted violation.

mod rules;
mod tree;

use std::io::Write;

use rules::{documents, machine, purity, shape, words};
use tree::{File, Finding, Tree};

/// Fails with every finding of a rule over the whole tree.
fn holds(rule: impl Fn(&File) -> Vec<Finding>) {
    let tree = Tree::read().expect("the workspace is readable");
    fail_on(tree.files().iter().flat_map(rule).collect());
}

fn fail_on(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn the_tree_is_read() {
    let tree = Tree::read().expect("the workspace is readable");
    for path in [
        "Cargo.toml",
        "dev",
        ".ci/run",
        "tests/tidy/main.rs",
        "services/domain/src/lib.rs",
    ] {
        assert!(
            tree.files().iter().any(|file| file.path == path),
            "{path} was not read"
        );
    }
    assert!(
        tree.files()
            .iter()
            .all(|file| !file.path.starts_with("target/"))
    );
}

#[test]
fn files_end_soon() {
    let tree = Tree::read().expect("the workspace is readable");
    let mut long: Vec<_> = tree.files().iter().filter_map(shape::long).collect();
    long.sort_unstable_by_key(|(lines, _)| std::cmp::Reverse(*lines));
    let mut err = std::io::stderr();
    for (lines, path) in long {
        writeln!(
            err,
            "warning: {path} has {lines} lines; aim under {}",
            shape::LINES_AIM
        )
        .expect("standard error is open");
    }
    holds(shape::length);
}

#[test]
fn file_names_name_a_concept() {
    holds(shape::name);
}

#[test]
fn rust_files_begin_with_a_header() {
    holds(shape::header);
}

#[test]
fn the_domain_and_the_core_are_pure() {
    holds(purity::pure);
}

#[test]
fn public_names_use_the_words_of_the_design() {
    holds(words::public_names);
}

#[test]
fn nothing_is_unfinished() {
    holds(words::unfinished);
}

#[test]
fn no_test_is_switched_off() {
    holds(words::switched_off);
}

#[test]
fn tests_wait_for_states_and_not_for_times() {
    holds(words::sleeps);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let here = machine::Here::of(&tree::root());
    holds(|file| here.paths(file));
}

#[test]
fn nothing_names_a_private_host() {
    holds(machine::hosts);
}

#[test]
fn metrics_are_named_as_agreed() {
    holds(documents::metrics);
}

#[test]
fn every_refusal_is_documented() {
    let tree = Tree::read().expect("the workspace is readable");
    let codes = domain::Refusal::ALL.iter().map(|refusal| refusal.code());
    fail_on(documents::refusals(codes, tree.files()));
}
