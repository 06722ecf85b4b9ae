//! The rules, one function each.

pub(crate) mod documents;
pub(crate) mod machine;
pub(crate) mod purity;
pub(crate) mod shape;
pub(crate) mod words;

/// Whether `word` stands in `line` with no letter, digit or `_` at either side; answers each place.
fn whole<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = line[..*at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            // A word that itself begins or ends with a sign has its border there.
            let free_before = !word.starts_with(part) || !before.is_some_and(part);
            let free_after = !word.ends_with(part) || !after.is_some_and(part);
            free_before && free_after
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_only() {
        assert_eq!(
            whole("now known now_ now", "now").collect::<Vec<_>>(),
            [0, 15]
        );
        assert_eq!(whole("Clock::now() unknown()", "now(").count(), 1);
        assert_eq!(
            whole("strand::x rand::y", "rand::").collect::<Vec<_>>(),
            [10]
        );
    }
}
