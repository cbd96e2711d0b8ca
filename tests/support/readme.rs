//! The README, and the examples in it.

use std::fs;
use std::path::Path;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The code blocks of a language, in order.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut blocks = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once(&format!("\n```{language}\n")) {
        let (block, after) = after.split_once("\n```").expect("an end of the block");
        blocks.push(format!("{block}\n"));
        rest = after;
    }
    blocks
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
