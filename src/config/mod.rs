//! Configuration: from a YAML file to a [`model::Config`].
//!
//! `tree` parses the text into nodes with places, `de` reads the nodes into the keys as typed (`raw`), and `check` turns
//! these into the model. Each step adds to one list of diagnostics: all errors of a file are reported at once, in order.

mod check;
mod de;
pub mod files;
mod foreign;
mod located;
pub mod model;
mod raw;
mod report;
mod scalars;
mod scalars_serde;
mod schema;
mod tree;
mod unknown;
mod unsupported;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use files::Files;
use report::Source;
pub use report::{Diagnostic, Severity, Style};

/// Default paths, in the order in which they are tried.
pub const DEFAULT_PATHS: [&str; 2] = ["./tidegate.yaml", "/etc/tidegate/config.yaml"];

/// Maximum size of a configuration file, in bytes. A thousand pools of a hundred backends fit.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration as meant.
    pub config: model::Config,
    /// Warnings in the order of their places.
    pub warnings: Vec<Diagnostic>,
    source: Source,
}

impl Loaded {
    /// Logs each warning with its place and hint.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            let (place, hint) = (self.source.place(warning), warning.hint.as_deref());
            tracing::warn!(place, hint, "configuration: {}", warning.message);
        }
    }

    /// The warnings with their places, lines and hints; empty when there are none.
    pub fn render_warnings(&self, style: Style) -> String {
        self.source.render(&self.warnings, style)
    }
}

/// A rejected configuration. `Display` is the whole report without colours.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Errors and warnings in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
    source: Source,
}

impl Failure {
    fn of_file(path: &Path, diagnostic: Diagnostic) -> Failure {
        let source = Source::new(&path.display().to_string(), "");
        Failure { diagnostics: vec![diagnostic], source }
    }

    /// The diagnostics with their places, lines and hints.
    pub fn render(&self, style: Style) -> String {
        self.source.render(&self.diagnostics, style)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Failure {}

/// The first of [`DEFAULT_PATHS`] that exists.
pub fn find() -> Option<PathBuf> {
    DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Reads and checks a file and the files that it names.
///
/// # Errors
///
/// The file cannot be read, is larger than 16 MiB, is not UTF-8, or [`parse`] rejects it.
pub fn load(path: &Path, files: &dyn Files) -> Result<Loaded, Failure> {
    let name = path.display();
    let unreadable = |error: std::io::Error| {
        let diagnostic = Diagnostic::new(format!("cannot read {name}: {error}"));
        Failure::of_file(
            path,
            match error.kind() {
                std::io::ErrorKind::NotFound => diagnostic.hint("check the path; `tidegate check FILE` tries it"),
                std::io::ErrorKind::PermissionDenied => diagnostic.hint("grant tidegate's user read permission"),
                std::io::ErrorKind::IsADirectory => diagnostic.hint("write the path of a file in it"),
                _ => diagnostic,
            },
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // The size in the metadata is no bound: a pipe has none, and a file may grow.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        let diagnostic =
            Diagnostic::new(format!("{name} is larger than 16 MiB")).hint("this is probably not a configuration file");
        return Err(Failure::of_file(path, diagnostic));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name.to_string(), &text, files),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            let diagnostic = Diagnostic::new(format!("{name}:{line}: not UTF-8 text")).hint("save the file as UTF-8");
            Err(Failure::of_file(path, diagnostic))
        }
    }
}

/// Checks the text of a configuration. `name` stands for it in reports; `files` checks the files that it names.
///
/// # Errors
///
/// All errors, with their places.
pub fn parse(name: &str, text: &str, files: &dyn Files) -> Result<Loaded, Failure> {
    // A byte order mark is not part of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(name, text);
    let (config, mut diagnostics) = read(text, files);
    // A stable sort: diagnostics of one place keep their order. Those of the whole file come first.
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match config {
        Some(config) if !failed => Ok(Loaded { config, warnings: diagnostics, source }),
        _ => Err(Failure { diagnostics, source }),
    }
}

fn read(text: &str, files: &dyn Files) -> (Option<model::Config>, Vec<Diagnostic>) {
    let (tree, mut diagnostics, complete) = tree::parse(text);
    if !complete {
        // After a syntax error, further diagnostics would be guesses.
        return (None, diagnostics);
    }
    match tree.root() {
        Some(root) if !tree.is_null(root) => {}
        _ => {
            let diagnostic = Diagnostic::new("the file is empty: no listeners and no pools")
                .hint("start from the example config/web.yaml");
            return (None, vec![diagnostic.at(0..0)]);
        }
    }
    let (raw, unread) = de::read::<raw::RawConfig>(&tree);
    diagnostics.extend(unread);
    let Some(raw) = raw else {
        return (None, diagnostics);
    };
    let (config, wrong) = check::check(&tree, &raw, files);
    diagnostics.extend(wrong);
    (config, diagnostics)
}

/// The JSON Schema of the configuration language, for editors.
pub fn schema() -> serde_json::Value {
    schema::schema()
}
