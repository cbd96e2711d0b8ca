//! README.md and the manual in docs/, and the examples in them.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page: its path from the root of the repository, and its text.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A fenced block of a page, in the language behind its opening fence.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) page: PathBuf,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// README.md first, then docs/ by path.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md")];
    collect(Path::new("docs"), &mut paths);
    paths[1..].sort();
    let page = |path: PathBuf| Page { text: fs::read_to_string(root().join(&path)).expect("a page"), path };
    paths.into_iter().map(page).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = folder.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}

/// All pages, one after the other.
pub(crate) fn manual() -> String {
    pages().into_iter().map(|page| page.text + "\n").collect()
}

impl Page {
    /// Its text without fenced blocks.
    pub(crate) fn prose(&self) -> String {
        self.split(|_| {})
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        self.split(|block| blocks.push(block));
        blocks
    }

    fn split(&self, mut found: impl FnMut(Block)) -> String {
        let (mut prose, mut open) = (String::new(), None::<Block>);
        for line in self.text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let (page, language) = (self.path.clone(), language.to_owned());
                    open = Some(Block { page, language, text: String::new() });
                }
                (Some(_), Some(_)) => found(open.take().expect("it is open")),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => prose += &format!("{line}\n"),
            }
        }
        assert!(open.is_none(), "{}: an open block", self.path.display());
        prose
    }
}

/// All blocks of a language, in the order of [`pages`].
pub(crate) fn blocks_of(language: &str) -> Vec<Block> {
    pages().iter().flat_map(Page::blocks).filter(|block| block.language == language).collect()
}

/// Their texts.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    blocks_of(language).into_iter().map(|block| block.text).collect()
}

/// The example under this name, which its first line is.
pub(crate) fn yaml(name: &str) -> String {
    let named = format!("# {name}\n");
    let found: Vec<String> = blocks("yaml").into_iter().filter(|block| block.starts_with(&named)).collect();
    let [yaml] = &found[..] else { panic!("one block of {name} is expected, not {}", found.len()) };
    yaml.clone()
}

/// The example in which tidegate stands in front of PostgreSQL.
pub(crate) fn the_yaml() -> String {
    yaml("postgres.yaml")
}

/// The block of commands that begins with this.
pub(crate) fn command(beginning: &str) -> String {
    let found = blocks("sh").into_iter().find(|block| block.starts_with(beginning));
    found.unwrap_or_else(|| panic!("a command {beginning}")).trim().to_owned()
}

pub(crate) fn quote(containing: &str) -> String {
    let found = blocks("text").into_iter().find(|block| block.contains(containing));
    found.unwrap_or_else(|| panic!("a quote with {containing}"))
}
