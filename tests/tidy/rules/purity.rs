//! The domain, the core, the planner and the steering wait for nothing, look at no clock, draw nothing and touch no file.

use super::whole;
use crate::tree::{File, Finding};

const PURE: [&str; 4] = [
    "services/domain/src/",
    "services/inventory/core/src/",
    "services/planner/src/",
    "services/identity/src/doorkeeper/steer",
];

/// Words of waiting, clocks, chance and the outside world.
const WORDS: [&str; 24] = [
    "async",
    "await",
    "tokio",
    "futures",
    "Instant",
    "SystemTime",
    "now(",
    "rand::",
    "rand_core",
    "OsRng",
    "thread_rng",
    "ThreadRng",
    "getrandom",
    "new_v4",
    "now_v7",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::io",
    "RandomState",
    "println!",
    "tracing",
];

pub(crate) fn pure(file: &File) -> Vec<Finding> {
    if !file.is("rs") || !PURE.iter().any(|folder| file.path.starts_with(folder)) {
        return Vec::new();
    }
    let lines = file.product().lines().enumerate();
    let hits = lines.flat_map(|(number, line)| {
        let words = WORDS
            .iter()
            .filter(move |word| whole(line, word).next().is_some());
        words.map(move |word| (number, word))
    });
    hits.map(|(number, word)| file.finding(number, format_args!("`{word}` in a pure crate")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impure_words_are_caught() {
        for text in [
            "pub async fn f() {}",
            "let x = Instant::now();",
            "jiff::Timestamp::now()",
            "use rand::Rng;",
            "Uuid::new_v4()",
            "std::fs::read(p)",
        ] {
            for path in [
                "services/domain/src/a.rs",
                "services/inventory/core/src/shard/a.rs",
            ] {
                assert!(!pure(&File::new(path, text)).is_empty(), "{text} in {path}");
            }
            assert!(
                pure(&File::new("gateway/src/a.rs", text)).is_empty(),
                "a shell may: {text}"
            );
        }
    }

    #[test]
    fn comments_arguments_and_tests_are_not() {
        for text in [
            "// await the clock's now()",
            "fn handle(now: Timestamp, operand: u8) {}",
            "let text = \"async\";",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n use rand::Rng;\n}",
        ] {
            let file = File::new("services/domain/src/a.rs", text);
            assert_eq!(pure(&file), [], "{text}");
        }
    }
}
