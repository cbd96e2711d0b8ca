//! Configuration: from a YAML file to a [`model::Config`].
//!
//! `include` reads the files, `tree` parses each text into nodes with places and joins them, `de` reads the nodes into the keys as
//! typed (`raw`), and `check` turns these into the model. Each step adds to one list of diagnostics: all errors are reported at
//! once, in order.

mod check;
mod de;
pub mod effective;
mod expand;
pub mod files;
mod flat;
mod foreign;
mod include;
mod located;
pub mod model;
mod raw;
pub mod recheck;
pub mod reference;
mod report;
mod scalars;
mod scalars_serde;
mod schema;
mod source;
mod tree;
mod unknown;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use files::Files;
pub use include::MAX_FILE;
use include::{Gathered, Includes};
pub use report::{Diagnostic, Severity, Style};
pub use source::ConfigTexts;
use source::Source;

/// Default paths, in the order in which they are tried.
pub const DEFAULT_PATHS: [&str; 2] = ["./tidegate.yaml", "/etc/tidegate/config.yaml"];

/// The variable of the environment that names the configuration file where no argument does.
pub const PATH_VARIABLE: &str = "LB_CONFIG";

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
    /// The texts that were read.
    pub fn texts(&self) -> ConfigTexts {
        self.source.texts()
    }

    /// Logs each warning with its place and hint.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            let (place, hint) = (self.source.place_of(warning), warning.hint.as_deref());
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

    /// The texts that they are of; empty if there was none to be had.
    pub fn texts(&self) -> ConfigTexts {
        self.source.texts()
    }

    /// The diagnostics with their places, lines and hints.
    pub fn render(&self, style: Style) -> String {
        self.source.render(&self.diagnostics, style)
    }
}

/// An error of a [`Failure`], with its place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LocatedError {
    /// Name of the file.
    pub file: String,
    /// Line and column, from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// See `line`.
    pub column: Option<usize>,
    /// One sentence.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}

/// Errors of a file that [`Failure::errors`] lists: as many as the report shows.
const MAX_ERRORS: usize = 100;

impl Failure {
    /// The errors without the warnings.
    ///
    /// At most [`MAX_ERRORS`] of them: the place of each takes a look at the text.
    pub fn errors(&self) -> Vec<LocatedError> {
        let errors = self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        let located = |diagnostic: &Diagnostic| {
            let text = diagnostic.span.as_ref().map_or(self.source.main(), |span| self.source.of(span));
            let place = diagnostic.span.as_ref().map(|span| text.line_and_column(span));
            LocatedError {
                file: text.name.to_string(),
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
                message: diagnostic.message.clone(),
                help: diagnostic.hint.clone(),
            }
        };
        errors.take(MAX_ERRORS).map(located).collect()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Failure {}

/// Reads a duration as a configuration has it: `250ms`, `2s`, `5m`, `1h`.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let period: Result<scalars::Period, Diagnostic> = text.parse();
    period.map(|period| period.0).map_err(|wrong| match wrong.hint {
        Some(hint) => format!("{}: {hint}", wrong.message),
        None => wrong.message,
    })
}

/// The file that [`PATH_VARIABLE`] names, or the first of [`DEFAULT_PATHS`] that exists.
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// Reads and checks a file, those that it includes, and those that it names.
///
/// # Errors
///
/// The file cannot be read, is larger than 16 MiB with what it includes, is not UTF-8, or is wrong.
pub fn load(path: &Path, files: &dyn Files) -> Result<Loaded, Failure> {
    match include::read_files(path, files) {
        Ok(gathered) => understand(gathered, files),
        Err(diagnostic) => Err(Failure::of_file(path, diagnostic)),
    }
}

/// Checks the text of a configuration that is no file. `name` stands for it in reports; `files` checks the files that it names.
///
/// # Errors
///
/// All errors, with their places.
pub fn parse(name: &str, text: &str, files: &dyn Files) -> Result<Loaded, Failure> {
    understand(include::read_alone(name, text, files), files)
}

/// What the checks of a file find in values that were never one.
fn diagnose(values: &serde_json::Value, files: &dyn Files) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let _config = read(&tree::Tree::of_values(values), &mut diagnostics, files);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    diagnostics
}

/// The texts of a file and of those that it includes, and the files whose change, appearance or disappearance changes them: the
/// last part of a path may be a pattern. `None` if the file cannot be read.
pub fn read_texts(path: &Path, files: &dyn Files) -> Option<(ConfigTexts, BTreeSet<PathBuf>)> {
    let gathered = include::read_files(path, files).ok()?;
    Some((gathered.source.texts(), gathered.watched))
}

/// A file as one text, for those who cannot read what it includes: included sections are written out, variables stay, and each line
/// ends with its place. A file that includes nothing is as it is.
///
/// # Errors
/// One of the files cannot be read, or an included one or one that includes others is not YAML.
pub fn as_one_text(path: &Path, files: &dyn Files) -> Result<String, Failure> {
    let gathered = include::read_files(path, files).map_err(|diagnostic| Failure::of_file(path, diagnostic))?;
    let Gathered { source, tree, diagnostics, include, .. } = gathered;
    match (tree, include) {
        (_, Includes::Nothing) => Ok(source.main().text.to_string()),
        (Some(tree), Includes::Files) => Ok(flat::flat(&tree, &source)),
        (None, _) | (_, Includes::Faulty) => Err(Failure { diagnostics, source }),
    }
}

fn understand(gathered: Gathered, files: &dyn Files) -> Result<Loaded, Failure> {
    let Gathered { source, tree, mut diagnostics, .. } = gathered;
    let config = tree.and_then(|tree| read(&tree, &mut diagnostics, files));
    // A stable sort: diagnostics of one place keep their order. Those of the whole file come first.
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match config {
        Some(config) if !failed => Ok(Loaded { config, warnings: diagnostics, source }),
        _ => Err(Failure { diagnostics, source }),
    }
}

fn read(tree: &tree::Tree, diagnostics: &mut Vec<Diagnostic>, files: &dyn Files) -> Option<model::Config> {
    if tree.root().is_none_or(|root| tree.is_null(root)) {
        let diagnostic = Diagnostic::new("the file is empty: no listeners and no pools")
            .hint("start from the example config/web.yaml");
        *diagnostics = vec![diagnostic.at(0..0)];
        return None;
    }
    let (raw, unread) = de::read::<raw::RawConfig>(tree);
    diagnostics.extend(unread);
    let (config, wrong) = check::check(tree, &raw?, files);
    diagnostics.extend(wrong);
    config
}

/// The `admin` section of a configuration whatever else is wrong with it, for those who ask the running process. `None` if it has
/// none, or cannot be read that far.
pub fn admin_section(path: &Path) -> Option<model::AdminConfig> {
    let tree = include::read_files(path, &files::Unread).ok()?.tree?;
    check::admin_section(&tree, &de::read::<raw::RawConfig>(&tree).0?)
}

/// Text as a value of a file that means it: without variables.
pub fn literal(text: &str) -> String {
    expand::escape(text)
}

/// As [`literal`], of bytes.
pub fn literal_bytes(bytes: &[u8]) -> Vec<u8> {
    expand::escape_bytes(bytes)
}

/// Reads the address of a backend, as in `pools[].backends[].address`.
///
/// # Errors
/// What is wrong with it, and the remedy.
pub fn backend_address(text: &str) -> Result<model::BackendAddress, Diagnostic> {
    text.parse::<scalars::BackendEndpoint>().map(|endpoint| endpoint.address)
}

/// What is wrong with a name of a backend, if anything is.
pub fn name_fault(name: &str) -> Option<Diagnostic> {
    check::name_fault(name)
}

/// The JSON Schema of the configuration language, for editors.
pub fn schema() -> serde_json::Value {
    schema::for_editors()
}
