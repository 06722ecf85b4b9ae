//! What files look like from outside: length, name, header.

use crate::tree::{File, Finding};

/// From here on a file is named in a warning.
pub(crate) const LINES_AIM: usize = 300;
/// Nobody keeps more than this in their head.
const LINES_MAX: usize = 600;

/// Drawers without a label, and the module file that every tab would call the same.
const BANNED: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "misc", "stuff", "mod",
];

fn is_code(file: &File) -> bool {
    file.is("rs") || file.is("py") || file.is("sh") || file.text.starts_with("#!")
}

/// Length and path of code that is longer than it should be.
pub(crate) fn long(file: &File) -> Option<(usize, &str)> {
    let lines = file.text.lines().count();
    (is_code(file) && lines > LINES_AIM).then_some((lines, &file.path))
}

pub(crate) fn length(file: &File) -> Vec<Finding> {
    match long(file) {
        Some((lines, _)) if lines > LINES_MAX => {
            vec![file.finding(
                LINES_MAX,
                format_args!("{lines} lines; the limit is {LINES_MAX}"),
            )]
        }
        Some(_) | None => Vec::new(),
    }
}

pub(crate) fn name(file: &File) -> Vec<Finding> {
    let mut parts = file.path.rsplit('/');
    let stem = parts.next().unwrap_or_default().trim_end_matches(".rs");
    if file.is("rs") && BANNED.contains(&stem) {
        return vec![file.finding(0, format_args!("`{stem}.rs` names no concept"))];
    }
    Vec::new()
}

pub(crate) fn header(file: &File) -> Vec<Finding> {
    let says = |line: &str| {
        line.strip_prefix("//!")
            .is_some_and(|text| !text.trim().is_empty())
    };
    if file.is("rs") && !file.text.lines().next().is_some_and(says) {
        return vec![file.finding(
            0,
            "the first line is no `//!` header that says what this is",
        )];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> File {
        File::new("a/b.rs", &"x\n".repeat(count))
    }

    #[test]
    fn too_long_is_caught() {
        assert_eq!(length(&lines(LINES_MAX + 1)).len(), 1);
        assert!(length(&lines(LINES_MAX)).is_empty());
        assert!(long(&lines(LINES_AIM + 1)).is_some());
        assert!(long(&lines(LINES_AIM)).is_none());
        assert_eq!(
            length(&File::new(
                "dev",
                &format!("#!/bin/sh\n{}", "x\n".repeat(LINES_MAX))
            ))
            .len(),
            1
        );
        assert!(
            length(&File::new("a.lock", &"x\n".repeat(5_000))).is_empty(),
            "not code"
        );
    }

    #[test]
    fn drawers_are_caught() {
        for path in ["a/utils.rs", "a/helpers.rs", "common.rs", "a/b/mod.rs"] {
            assert_eq!(name(&File::new(path, "")).len(), 1, "{path}");
        }
        for path in ["a/backoff.rs", "proto/common/v1/common.proto", "a/model.rs"] {
            assert!(name(&File::new(path, "")).is_empty(), "{path}");
        }
    }

    #[test]
    fn missing_headers_are_caught() {
        for text in [
            "",
            "use x;\n",
            "// What.\n",
            "//!\n//! Late.\n",
            "\n//! Late.\n",
        ] {
            assert_eq!(header(&File::new("a.rs", text)).len(), 1, "{text:?}");
        }
        assert!(header(&File::new("a.rs", "//! What.\n")).is_empty());
    }
}
