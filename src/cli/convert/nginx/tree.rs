//! nginx.conf as a tree of directives, with the files that it includes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::lexer::{Lexeme, Lexer};
use crate::cli::convert::ledger::{Ledger, Outcome, StatementId};

/// Deepest nesting of blocks and of files.
const MAX_DEPTH: usize = 16;

/// Most files that are included.
const MAX_FILES: usize = 1000;

/// Largest size of all files that are included, in bytes.
const MAX_INCLUDED: u64 = 8 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Directive {
    pub(super) id: StatementId,
    /// At least one.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// A word behind the name, from 1; empty if there is none.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub(super) fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// All directives below this one.
    pub(super) fn descendants(&self) -> Vec<StatementId> {
        let mut found = Vec::new();
        for child in self.children() {
            found.push(child.id);
            found.extend(child.descendants());
        }
        found
    }

    /// Accounts for the whole block at once.
    pub(super) fn account(&self, outcome: Outcome, why: &'static str, ledger: &mut Ledger) {
        // Statements of other files keep their own place in the report.
        ledger.block(self.id, &self.descendants(), outcome, why);
    }
}

/// Reads directives, and accounts for what is none.
pub(super) struct TreeReader<'l> {
    ledger: &'l mut Ledger,
    /// The directory of the file that is converted: nginx takes paths from there.
    folder: PathBuf,
    files: usize,
    bytes: u64,
}

impl<'l> TreeReader<'l> {
    pub(super) fn new(folder: &Path, ledger: &'l mut Ledger) -> TreeReader<'l> {
        TreeReader { ledger, folder: folder.to_owned(), files: 0, bytes: 0 }
    }

    /// The directives of a text; `depth` counts the blocks and files around it.
    pub(super) fn read(&mut self, text: &str, file: usize, depth: usize) -> Vec<Directive> {
        let mut directives = Vec::new();
        self.block(&mut Lexer::new(text), (file, depth, false), &mut directives);
        directives
    }

    /// Reads up to the closing brace, if the text is `nested` in a block, or to the end. Whether there was a brace.
    fn block(
        &mut self,
        lexer: &mut Lexer<'_>,
        (file, depth, nested): (usize, usize, bool),
        into: &mut Vec<Directive>,
    ) -> bool {
        let mut words: Vec<String> = Vec::new();
        let mut first = 0;
        while let Some((token, line)) = lexer.next() {
            if words.is_empty() {
                first = line;
            }
            match token {
                Lexeme::Word(word) => words.push(word),
                Lexeme::End if words.is_empty() => {}
                Lexeme::End => {
                    let id = self.ledger.add(file, first, line, &shown(&words));
                    let directive = Directive { id, words: std::mem::take(&mut words), block: None };
                    if directive.name() == "include" {
                        self.include(&directive, depth, into);
                    } else {
                        into.push(directive);
                    }
                }
                Lexeme::Open => {
                    let id = self.ledger.add(file, first, line, &shown(&words));
                    let mut inner = Vec::new();
                    let is_code = words.first().is_some_and(|name| name.ends_with("_by_lua_block"));
                    let has_end = if is_code || depth >= MAX_DEPTH {
                        self.ledger.left(id, if is_code { "there are no scripts" } else { "nested too deeply" });
                        lexer.skip_block()
                    } else {
                        self.block(lexer, (file, depth + 1, true), &mut inner)
                    };
                    if !has_end {
                        self.ledger.left(id, "the block does not end");
                    }
                    into.push(Directive { id, words: std::mem::take(&mut words), block: Some(inner) });
                }
                Lexeme::Close => {
                    self.incomplete(&mut words, (file, first, line), "the semicolon is missing");
                    if nested {
                        return true;
                    }
                    let id = self.ledger.add(file, line, line, "}");
                    self.ledger.left(id, "the brace closes nothing");
                }
                Lexeme::Cut(why) => {
                    words.push("\"".to_owned());
                    let last = lexer.line();
                    self.incomplete(&mut words, (file, first, last), why);
                }
            }
        }
        let last = lexer.line();
        self.incomplete(&mut words, (file, first, last), "the semicolon is missing");
        false
    }

    fn incomplete(&mut self, words: &mut Vec<String>, (file, first, last): (usize, usize, usize), why: &'static str) {
        if !words.is_empty() {
            let id = self.ledger.add(file, first, last.max(first), &shown(words));
            self.ledger.left(id, why);
            words.clear();
        }
    }

    /// Puts the directives of other files in the place of an `include`.
    fn include(&mut self, directive: &Directive, depth: usize, into: &mut Vec<Directive>) {
        let pattern = Path::new(directive.word(1));
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == "mime.types" || name.ends_with("_params") {
            return self.ledger.not_needed(directive.id, "nothing is served from files, and nothing speaks FastCGI");
        }
        let folder = self.folder.join(pattern.parent().unwrap_or(Path::new("")));
        // An empty path is the current directory.
        let entries = fs::read_dir(if folder == Path::new("") { Path::new(".") } else { &folder });
        let names = entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|found| matches(name, found)).collect();
        names.sort();
        if names.is_empty() && (!name.contains(['*', '?']) || !folder.is_dir() && folder != Path::new("")) {
            return self.ledger.left(directive.id, "there is no such file here");
        }
        if depth >= MAX_DEPTH {
            return self.ledger.left(directive.id, "files are included too deeply");
        }
        self.ledger.translated(directive.id);
        for found in names {
            let path = folder.join(&found);
            self.files += 1;
            let text = if self.files > MAX_FILES { Err("too many files") } else { self.text(&path) };
            match text {
                Ok(text) => {
                    let file = self.ledger.file(&path.display().to_string());
                    into.extend(self.read(&text, file, depth + 1));
                }
                Err(why) => self.ledger.left(directive.id, format!("{found}: {why}")),
            }
        }
    }

    fn text(&mut self, path: &Path) -> Result<String, &'static str> {
        // A pipe would block.
        if !path.is_file() {
            return Err("not a file");
        }
        let mut bytes = Vec::new();
        let rest = MAX_INCLUDED - self.bytes;
        let file = File::open(path).map_err(|_| "cannot be read")?;
        file.take(rest + 1).read_to_end(&mut bytes).map_err(|_| "cannot be read")?;
        if bytes.len() as u64 > rest {
            return Err("the files are larger than 8 MiB");
        }
        self.bytes += bytes.len() as u64;
        String::from_utf8(bytes).map_err(|_| "not UTF-8 text")
    }
}

/// Words as a report shows them.
fn shown(words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(|word| if word.is_empty() { "\"\"" } else { word.as_str() }).collect();
    words.join(" ")
}

/// Whether a name is that of a pattern with `*` and `?`. A star leaves out hidden files, as nginx does.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, letters): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    if name.starts_with('.') && !pattern.starts_with(&['.']) {
        return false;
    }
    let (mut at, mut to) = (0, 0);
    // Where to go on after the latest star, which takes one letter more each time.
    let mut star: Option<(usize, usize)> = None;
    while to < letters.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, to));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == letters[to] => (at, to) = (at + 1, to + 1),
            _ => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (at, to) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            ("*", "site", true),
            ("*", ".hidden", false),
            ("a?c*e", "abcdde", true),
            ("a*b*c", "aXbXbX", false),
            ("x.conf", "x.conf", true),
            ("*.conf", "a.conf.bak", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.conf"), "x;\ninclude a.conf;\n").unwrap();
        let mut ledger = Ledger::default();
        let file = ledger.file("a.conf");
        let found = TreeReader::new(folder.path(), &mut ledger).read("include a.conf;", file, 0);
        assert_eq!(found.len(), MAX_DEPTH);
        ledger.close();
        let left = ledger.remarks(Outcome::Left);
        assert!(left.iter().any(|remark| remark.why == "files are included too deeply"));
    }
}
