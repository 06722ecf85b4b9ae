//! Merges the layers into one tree and reads it, going on after each problem.
//!
//! Invariant: a message never quotes a line of the file, which may hold a secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::problems::Problems;

const PREFIX: &str = "DOSELINE__";

/// More problems than anybody reads at once; bounds the work on a hostile file.
const PROBLEMS_MAX: usize = 200;

/// The merged settings above the defaults.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Table,
    /// Settings that came as bare text: where from, and the text, which may have been meant as a text after all.
    texts: BTreeMap<Vec<String>, (String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

// === impl Tree ===

impl Tree {
    pub(super) fn add_file(&mut self, path: &Path, problems: &mut Problems) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_text(&text, &path.display().to_string(), problems),
            Err(error) => {
                problems.report(
                    "",
                    format_args!("{} cannot be read: {error}", path.display()),
                );
            }
        }
    }

    pub(super) fn add_text(&mut self, text: &str, source: &str, problems: &mut Problems) {
        match text.parse::<Table>() {
            Ok(table) => merge(&mut self.root, table),
            Err(error) => {
                let line = error.span().map_or(0, |span| {
                    text.get(..span.start)
                        .map_or(0, |before| before.matches('\n').count() + 1)
                });
                let message = error.message();
                problems.report("", format_args!("{source}, line {line}: {message}"));
            }
        }
    }

    pub(super) fn add_environment(
        &mut self,
        variables: &[(OsString, OsString)],
        problems: &mut Problems,
    ) {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let path: Vec<_> = name[PREFIX.len()..]
                .split("__")
                .map(str::to_ascii_lowercase)
                .collect();
            match value.to_str() {
                Some(value) => self.add_setting(path, value, name, problems),
                None => problems.report(path.join("."), format_args!("{name} is not UTF-8")),
            }
        }
    }

    pub(super) fn add_override(&mut self, setting: &str, problems: &mut Problems) {
        match setting.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let path = key.trim().split('.').map(str::to_owned).collect();
                self.add_setting(path, value, "--set", problems);
            }
            // The text is not repeated: it may be a secret whose key was forgotten.
            Some(_) | None => problems.report("", "--set wants KEY=VALUE"),
        }
    }

    /// Text is read as TOML where it is some, and as plain text where that is what the setting wants.
    fn add_setting(
        &mut self,
        path: Vec<String>,
        text: &str,
        source: &str,
        problems: &mut Problems,
    ) {
        let value = text
            .parse::<Value>()
            .unwrap_or_else(|_| Value::String(text.to_owned()));
        let steps: Vec<_> = path.iter().cloned().map(Step::Key).collect();
        if path.iter().any(String::is_empty) || !put(&mut self.root, &steps, value) {
            problems.report(
                path.join("."),
                format_args!("({source}) there is no such section"),
            );
            return;
        }
        self.texts
            .insert(path, (source.to_owned(), text.to_owned()));
    }

    /// Reads the tree; after a problem the offending key is taken out and reading starts again.
    pub(super) fn read<R: DeserializeOwned>(mut self, problems: &mut Problems) -> Option<R> {
        for _ in 0..PROBLEMS_MAX {
            let error =
                match serde_path_to_error::deserialize::<_, R>(Value::Table(self.root.clone())) {
                    Ok(raw) => return Some(raw),
                    Err(error) => error,
                };
            let steps = resolve(&self.root, error.path().iter());
            if self.retry_as_text(&steps) {
                continue;
            }
            let key = shown(&steps);
            let message = error.inner().message();
            match self.source(&steps) {
                // The field is missing because its bad value was taken out; that was reported.
                _ if message.starts_with("missing field") && problems.any_below(&key) => {}
                Some(source) => problems.report(&key, format_args!("{message} (from {source})")),
                None => problems.report(&key, message),
            }
            if !take_out(&mut self.root, &steps) {
                return None;
            }
            if let Some(Step::Index(_)) = steps.last() {
                problems.left_out(&key);
            }
        }
        problems.report("", "there are too many problems to go on");
        None
    }

    fn retry_as_text(&mut self, steps: &[Step]) -> bool {
        let Some(path) = keys(steps) else {
            return false;
        };
        let Some((_, text)) = self.texts.get(&path) else {
            return false;
        };
        let as_text = Value::String(text.clone());
        let mut at = &self.root;
        for key in &path[..path.len().saturating_sub(1)] {
            match at.get(key).and_then(Value::as_table) {
                Some(below) => at = below,
                None => return false,
            }
        }
        let now = path.last().and_then(|key| at.get(key));
        now.is_some_and(|now| !now.is_str()) && put(&mut self.root, steps, as_text)
    }

    /// Where a setting came from, if not from the file.
    fn source(&self, steps: &[Step]) -> Option<&str> {
        let path: Vec<_> = steps
            .iter()
            .map_while(|step| match step {
                Step::Key(key) => Some(key.clone()),
                Step::Index(_) => None,
            })
            .collect();
        let (_, (source, _)) = self.texts.iter().find(|(known, _)| {
            !path.is_empty() && (known.starts_with(&path) || path.starts_with(known))
        })?;
        Some(source)
    }
}

fn keys(steps: &[Step]) -> Option<Vec<String>> {
    steps
        .iter()
        .map(|step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Index(_) => None,
        })
        .collect()
}

/// Tables merge, everything else is replaced.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(value)) => merge(below, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// As much of serde's path as exists in the tree; enums and flattened parts end it early.
fn resolve<'a>(root: &Table, path: impl Iterator<Item = &'a Segment>) -> Vec<Step> {
    let mut steps = Vec::new();
    let whole = Value::Table(root.clone());
    let mut at = &whole;
    for segment in path {
        let (step, below) = match segment {
            Segment::Map { key } | Segment::Enum { variant: key } => {
                (Step::Key(key.clone()), at.get(key.as_str()))
            }
            Segment::Seq { index } => (Step::Index(*index), at.get(*index)),
            Segment::Unknown => break,
        };
        let Some(below) = below else { break };
        steps.push(step);
        at = below;
    }
    steps
}

fn shown(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Sets a value, making sections on the way; false where something else stands in a section's place.
fn put(root: &mut Table, steps: &[Step], value: Value) -> bool {
    let Some((Step::Key(last), sections)) = steps.split_last() else {
        return false;
    };
    let mut at = root;
    for step in sections {
        let Step::Key(key) = step else { return false };
        let below = at
            .entry(key.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(below) = below else {
            return false;
        };
        at = below;
    }
    at.insert(last.clone(), value);
    true
}

fn take_out(root: &mut Table, steps: &[Step]) -> bool {
    let Some((last, sections)) = steps.split_last() else {
        return false;
    };
    let Some((Step::Key(first), rest)) = steps.split_first() else {
        return false;
    };
    if sections.is_empty() {
        return root.remove(first).is_some();
    }
    let Some(mut at) = root.get_mut(first) else {
        return false;
    };
    for step in &rest[..rest.len() - 1] {
        let below = match step {
            Step::Key(key) => at.get_mut(key.as_str()),
            Step::Index(index) => at.get_mut(*index),
        };
        let Some(below) = below else { return false };
        at = below;
    }
    match (last, at) {
        (Step::Key(key), Value::Table(table)) => table.remove(key).is_some(),
        (Step::Index(index), Value::Array(list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        (Step::Key(_) | Step::Index(_), _) => false,
    }
}
