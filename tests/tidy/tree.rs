//! The files of the workspace, and Rust and protobuf text without comments and strings.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Not ours, not text, or made by running.
const SKIPPED_FOLDERS: [&str; 8] = [
    ".git",
    "target",
    "data",
    "report",
    "__pycache__",
    ".venv",
    "node_modules",
    ".idea",
];

/// Text that people write; everything else is data.
const EXTENSIONS: [&str; 19] = [
    "rs", "toml", "lock", "md", "proto", "sql", "py", "sh", "yaml", "yml", "json", "txt", "tpl",
    "html", "css", "js", "cfg", "ini", "",
];

/// One text file.
pub(crate) struct File {
    /// Relative to the workspace, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// With comments and the insides of strings blanked, lines kept; the same as `text` where that is not known.
    pub(crate) code: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = match extension(path) {
            "rs" | "proto" => blank(text),
            _ => text.to_owned(),
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    pub(crate) fn is(&self, wanted: &str) -> bool {
        extension(&self.path) == wanted
    }

    /// The code that is not for tests: nothing of a test file, and of others what stands before their tests.
    pub(crate) fn product(&self) -> &str {
        &self.code[..self.tests_begin()]
    }

    /// The code that is for tests, and the number of lines before it.
    pub(crate) fn tests(&self) -> (usize, &str) {
        let at = self.tests_begin();
        (self.code[..at].matches('\n').count(), &self.code[at..])
    }

    fn tests_begin(&self) -> usize {
        let path = &self.path;
        if path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") {
            return 0;
        }
        self.code
            .find("#[cfg(test)]\nmod ")
            .unwrap_or(self.code.len())
    }

    pub(crate) fn finding(&self, line: usize, what: impl fmt::Display) -> Finding {
        Finding(format!("{}:{}: {what}", self.path, line + 1))
    }
}

/// A broken rule, with its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding(pub(crate) String);

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All text files of the workspace.
pub(crate) struct Tree(Vec<File>);

impl Tree {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let root = root();
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder);
            for entry in entries.with_context(|| format!("list {}", folder.display()))? {
                let path = entry?.path();
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if path.is_dir() {
                    if !SKIPPED_FOLDERS.contains(&name) {
                        folders.push(path);
                    }
                } else if EXTENSIONS.contains(&extension(name)) {
                    let bytes =
                        std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                    let relative = path
                        .strip_prefix(&root)?
                        .to_string_lossy()
                        .replace('\\', "/");
                    files.push(File::new(&relative, &String::from_utf8_lossy(&bytes)));
                }
            }
        }
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(Self(files))
    }

    pub(crate) fn files(&self) -> &[File] {
        &self.0
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// What follows the last dot of a file name; nothing for `dev` and `.gitignore`.
fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension,
        Some(_) | None => "",
    }
}

/// Blanks comments and what stands between quotes; every line keeps its number.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(
            chars[at..end]
                .iter()
                .map(|c| if *c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` when none begins.
fn skip(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let is = |text: &str| {
        text.chars()
            .enumerate()
            .all(|(i, c)| rest.get(i) == Some(&c))
    };
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if is("//") {
        return at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
    }
    if is("/*") {
        return at + find(rest, 2, "*/");
    }
    if rest[0] == '"' {
        return at + string_end(rest);
    }
    if rest[0] == 'r' && !word_before {
        let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            return at + find(rest, 2 + hashes, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    // A char literal; a lifetime has no second quote so near.
    if rest[0] == '\'' && !word_before {
        if rest.get(1) == Some(&'\\') {
            return at + find(rest, 3, "'");
        }
        if rest.get(2) == Some(&'\'') {
            return at + 3;
        }
    }
    at
}

fn string_end(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn find(rest: &[char], from: usize, end: &str) -> usize {
    let end: Vec<char> = end.chars().collect();
    let tail = rest.get(from..).unwrap_or_default();
    let found = tail.windows(end.len()).position(|window| window == end);
    found.map_or(rest.len(), |at| from + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_chars_are_blanked_and_lines_kept() {
        let text = "a // x\n/* y\n*/ b \"z\\\"w\" c r#\"v\"u\"# d '\"' e 'static f b\"g\" for_r";
        let code = blank(text);
        assert_eq!(code.lines().count(), text.lines().count());
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(
            words,
            ["a", "b", "c", "d", "e", "'static", "f", "b", "for_r"]
        );
    }

    #[test]
    fn tests_are_told_from_the_product() {
        let file = File::new(
            "a/src/b.rs",
            "fn product() {}\n\n#[cfg(test)]\nmod tests {\n}\n",
        );
        assert_eq!(file.product(), "fn product() {}\n\n");
        assert_eq!(file.tests().0, 2);
        assert_eq!(File::new("a/tests/b.rs", "fn x() {}").product(), "");
        assert_eq!(File::new("a/src/b/tests.rs", "fn x() {}").product(), "");
        assert_eq!(File::new("a/src/b.rs", "fn x() {}").tests(), (0, ""));
    }

    #[test]
    fn extensions_are_those_of_the_name() {
        let names = ["a.b/dev", ".gitignore", "x/y.tar.gz", "z.rs"].map(extension);
        assert_eq!(names, ["", "", "gz", "rs"]);
    }
}
