//! Words that mean something else here, words of unfinished work, and tests that do not test.

use super::whole;
use crate::tree::{File, Finding};

/// The design gives these things other names.
const FORBIDDEN: [(&str, &str); 4] = [
    ("token", "a permit, an epoch or a cursor"),
    ("reservation", "a hold or a booking"),
    ("leader", "an owner or the doorkeeper"),
    ("zone", "a failure_domain"),
];

/// Names that others gave, or that have no other name.
const ALLOWED: [&str; 8] = [
    "CancellationToken",
    "page_token",
    "next_page_token",
    "PageToken",
    "page_tokens",
    "time_zone",
    "TimeZone",
    "PAGE_TOKEN",
];

/// In pieces, so that this file does not find itself.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
];

/// The one place that may wait for a time.
const AWAITER: &str = "tests/src/await_until.rs";

/// Names after `pub`, and names in protobuf.
pub(crate) fn public_names(file: &File) -> Vec<Finding> {
    if !file.is("rs") && !file.is("proto") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in file.code.lines().enumerate() {
        let names = if file.is("rs") {
            public_name(line).into_iter().collect()
        } else {
            identifiers(line)
        };
        for name in names {
            if let Some((word, instead)) = forbidden(name) {
                let what = format!("`{word}` in `{name}`: here it is {instead}");
                findings.push(file.finding(number, what));
            }
        }
    }
    findings
}

/// The name that a line declares for others, if it does.
fn public_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start().strip_prefix("pub")?;
    if rest.starts_with('(') {
        rest = &rest[rest.find(')')? + 1..];
    }
    let declared = rest.strip_prefix(' ')?;
    let names = identifiers(declared);
    let keyword = |name: &&str| {
        [
            "const", "static", "async", "unsafe", "fn", "struct", "enum", "trait", "type", "mod",
            "mut",
        ]
        .contains(name)
    };
    // What is used is named where it is declared.
    names
        .into_iter()
        .find(|name| !keyword(name))
        .filter(|name| *name != "use" && *name != "extern")
}

fn identifiers(line: &str) -> Vec<&str> {
    let part = |c: char| !(c.is_alphanumeric() || c == '_');
    line.split(part).filter(|name| !name.is_empty()).collect()
}

/// The forbidden word in a name, whichever way the name is written.
fn forbidden(name: &str) -> Option<(&'static str, &'static str)> {
    let bare = ALLOWED
        .iter()
        .fold(name.to_owned(), |name, allowed| name.replace(allowed, ""));
    let mut snake = String::new();
    let mut last_small = false;
    for c in bare.chars() {
        if c.is_uppercase() && last_small {
            snake.push('_');
        }
        last_small = c.is_lowercase();
        snake.extend(c.to_lowercase());
    }
    let meant = |word: &str| {
        snake
            .split('_')
            .any(|part| part == word || part.strip_suffix('s') == Some(word))
    };
    FORBIDDEN.into_iter().find(|(word, _)| meant(word))
}

pub(crate) fn unfinished(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().enumerate();
    let hit = |line: &str| {
        UNFINISHED
            .into_iter()
            .find(|word| whole(line, word).next().is_some())
    };
    lines
        .filter_map(|(number, line)| Some((number, hit(line)?)))
        .map(|(number, word)| file.finding(number, format_args!("unfinished: {word}")))
        .collect()
}

pub(crate) fn switched_off(file: &File) -> Vec<Finding> {
    let marks: &[&str] = match (file.is("rs"), file.is("py")) {
        (true, _) => &["#[ignore", "cfg_attr(ignore"],
        (_, true) => &[
            "unittest.skip",
            "skipTest(",
            "expectedFailure",
            "pytest.mark.skip",
        ],
        _ => &[],
    };
    let lines = file.code.lines().enumerate();
    lines
        .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)))
        .map(|(number, _)| file.finding(number, "a test that does not run proves nothing"))
        .collect()
}

/// In a test, sleeping is for `await_until` and its like; where time is paused it costs none and proves much.
pub(crate) fn sleeps(file: &File) -> Vec<Finding> {
    let (before, tests) = file.tests();
    if !(file.is("rs") || file.is("py")) || tests.contains("start_paused = true") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut awaiting = false;
    for (number, line) in tests.lines().enumerate() {
        if let Some(name) = function(line) {
            awaiting = name.starts_with("await_") || file.path == AWAITER;
        }
        if !awaiting && whole(line, "sleep(").next().is_some() {
            findings.push(file.finding(before + number, "a test waits for a state: await_until"));
        }
    }
    findings
}

/// The name of the function that a line declares.
fn function(line: &str) -> Option<&str> {
    let at = whole(line, "fn ").next().map(|at| at + 3);
    let at = at.or_else(|| {
        line.trim_start()
            .starts_with("def ")
            .then(|| line.find("def "))
            .flatten()
            .map(|at| at + 4)
    })?;
    identifiers(&line[at..]).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_public_names_are_caught() {
        for text in [
            "pub struct FencingToken;",
            "    pub(crate) fn next_token() {}",
            "pub const TOKEN_TTL: u8 = 1;",
            "pub enum Reservation {}",
            "pub zone: String,",
            "pub async fn elect_leader() {}",
            "pub trait Tokens {}",
        ] {
            assert_eq!(public_names(&File::new("a.rs", text)).len(), 1, "{text}");
        }
        assert_eq!(
            public_names(&File::new("a.proto", "string fencing_token = 1;")).len(),
            1
        );
        assert_eq!(
            public_names(&File::new("a.proto", "message Reservation {")).len(),
            1
        );
    }

    #[test]
    fn allowed_names_pass() {
        for text in [
            "pub page_token: String,",
            "pub fn drain(stop: CancellationToken) {}",
            "pub use tokio_util::sync::CancellationToken;",
            "pub time_zone: TimeZone,",
            "pub struct PageTokenInvalid;",
            "pub fn tokenise() {}",
            "let token = 1;",
            "// pub fn token() {}",
        ] {
            assert_eq!(public_names(&File::new("a.rs", text)), [], "{text}");
        }
        assert_eq!(
            public_names(&File::new(
                "a.proto",
                "string next_page_token = 2; // a token"
            )),
            []
        );
    }

    #[test]
    fn unfinished_words_are_caught() {
        for word in UNFINISHED {
            for path in ["a.rs", "README.md", "a.proto"] {
                assert_eq!(
                    unfinished(&File::new(path, &format!("x {word} y"))).len(),
                    1,
                    "{word}"
                );
            }
        }
        let temporary = concat!("mktemp /tmp/a.XX", "XXXX");
        assert_eq!(unfinished(&File::new("dev", temporary)), []);
    }

    #[test]
    fn tests_that_do_not_run_are_caught() {
        assert_eq!(
            switched_off(&File::new("a.rs", "#[ignore = \"slow\"]\nfn f() {}")).len(),
            1
        );
        assert_eq!(
            switched_off(&File::new("a.py", "    self.skipTest('no')")).len(),
            1
        );
        assert_eq!(switched_off(&File::new("a.rs", "// #[ignore]")), []);
    }

    #[test]
    fn sleeping_tests_are_caught_and_the_product_may_sleep() {
        let text = "tokio::time::sleep(x).await;";
        let inline = format!("{text}\n#[cfg(test)]\nmod tests {{\n{text}\n}}");
        assert_eq!(sleeps(&File::new("tests/e2e/a.rs", text)).len(), 1);
        assert_eq!(
            sleeps(&File::new("a/src/b.rs", &inline)),
            [File::new("a/src/b.rs", "").finding(3, "a test waits for a state: await_until")]
        );
        assert_eq!(
            sleeps(&File::new("tests/python/a.py", "time.sleep(1)")).len(),
            1
        );
        assert_eq!(
            sleeps(&File::new(
                AWAITER,
                &format!("async fn attempts() {{\n{text}\n}}")
            )),
            []
        );
        assert_eq!(sleeps(&File::new("tests/e2e/a.rs", "// sleep(1)")), []);
        let awaiter = format!("async fn await_state() {{\n{text}\n}}\n");
        assert_eq!(sleeps(&File::new("a/tests/b.rs", &awaiter)), []);
        assert_eq!(
            sleeps(&File::new(
                "a/tests/b.rs",
                &format!("{awaiter}fn other() {{\n{text}\n}}")
            ))
            .len(),
            1
        );
        let paused = format!("#[tokio::test(start_paused = true)]\nasync fn f() {{\n{text}\n}}");
        assert_eq!(sleeps(&File::new("a/tests/b.rs", &paused)), []);
    }
}
