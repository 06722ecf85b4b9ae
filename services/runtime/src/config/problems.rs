//! Collects everything that is wrong with a configuration, each with its key.

use std::fmt;
use std::ops::RangeInclusive;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, such as `process.telemetry.format`; empty for the whole.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

/// All that is wrong so far. Keys are relative to the section being validated.
#[derive(Debug)]
pub struct Problems {
    found: Vec<Problem>,
    path: Vec<String>,
    /// Elements of lists that could not be read: the list's key and the element's place in the file.
    unread: Vec<(String, usize)>,
    dev: bool,
}

/// A configuration that cannot be used, with every reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Every problem, by key.
    pub problems: Vec<Problem>,
}

// === impl Problems ===

impl Problems {
    pub(super) fn new(dev: bool) -> Self {
        Self {
            found: Vec::new(),
            path: Vec::new(),
            unread: Vec::new(),
            dev,
        }
    }

    /// Whether unsafe choices are allowed (`--dev`).
    #[must_use]
    pub fn dev(&self) -> bool {
        self.dev
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Reports a problem. A key that could not even be read is not reported a second time:
    /// what `validate` sees of it is only its default.
    pub fn report(&mut self, key: impl fmt::Display, message: impl fmt::Display) {
        let mut full = self.path.join(".");
        let key = key.to_string();
        if !full.is_empty() && !key.is_empty() && !key.starts_with('[') {
            full.push('.');
        }
        full.push_str(&key);
        let full = self.as_in_the_file(full);
        if !self.found.iter().any(|known| known.key == full) {
            self.found.push(Problem {
                key: full,
                message: message.to_string(),
            });
        }
    }

    /// Reports a problem unless `holds`; gives `holds` back.
    pub fn check(
        &mut self,
        holds: bool,
        key: impl fmt::Display,
        message: impl fmt::Display,
    ) -> bool {
        if !holds {
            self.report(key, message);
        }
        holds
    }

    /// Reports a value outside `bounds`; gives the value back.
    pub fn within<T>(&mut self, key: impl fmt::Display, value: T, bounds: RangeInclusive<T>) -> T
    where
        T: PartialOrd + fmt::Display,
    {
        if !bounds.contains(&value) {
            let (low, high) = bounds.into_inner();
            self.report(key, format_args!("{value} is not between {low} and {high}"));
        }
        value
    }

    /// Reports a choice that is unsafe outside a developer's machine, unless `--dev` was given.
    pub fn unsafe_choice(&mut self, key: impl fmt::Display, what: impl fmt::Display) {
        if !self.dev {
            self.report(key, format_args!("{what}: only with --dev"));
        }
    }

    /// Gives the value, or reports why there is none.
    pub fn take<T, E: std::error::Error + 'static>(
        &mut self,
        key: impl fmt::Display,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(key, crate::fields::chain(&error));
                None
            }
        }
    }

    /// Validates a part under its key.
    pub fn section<T>(&mut self, name: impl fmt::Display, part: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_string());
        let result = part(self);
        self.path.pop();
        result
    }

    /// An element of a list was left out; those behind it have moved up since.
    pub(super) fn left_out(&mut self, key: &str) {
        let key = self.as_in_the_file(key.to_owned());
        let place = key.strip_suffix(']').and_then(|key| key.rsplit_once('['));
        if let Some((list, place)) = place
            && let Ok(place) = place.parse()
        {
            self.unread.push((list.to_owned(), place));
            self.unread.sort();
        }
    }

    /// Whether something inside `key` was reported.
    pub(super) fn any_below(&self, key: &str) -> bool {
        let section = format!("{}.", self.as_in_the_file(key.to_owned()));
        self.found
            .iter()
            .any(|known| known.key.starts_with(&section))
    }

    /// Undoes the moving up, so that `regions[2]` is the third in the file.
    fn as_in_the_file(&self, mut key: String) -> String {
        for (list, place) in &self.unread {
            let Some(rest) = key
                .strip_prefix(list.as_str())
                .and_then(|r| r.strip_prefix('['))
            else {
                continue;
            };
            let Some((index, rest)) = rest.split_once(']') else {
                continue;
            };
            if let Ok(index) = index.parse::<usize>()
                && *place <= index
            {
                key = format!("{list}[{}]{rest}", index + 1);
            }
        }
        key
    }

    pub(super) fn into_invalid(mut self) -> Invalid {
        self.found.sort_by(|a, b| a.key.cmp(&b.key));
        Invalid {
            problems: self.found,
        }
    }
}

// === impl Invalid ===

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "the configuration has {count} {noun}:")?;
        for Problem { key, message } in &self.problems {
            if key.is_empty() {
                write!(f, "\n  {message}")?;
            } else {
                write!(f, "\n  {key}: {message}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
