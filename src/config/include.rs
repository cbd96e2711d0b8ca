//! The files of a configuration: the one that is named, and those that it includes.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::files::Files;
use super::report::{Diagnostic, Severity};
use super::scalars::{FilePattern, part_of};
use super::source::Source;
use super::tree::{self, Expansion, NodeId, NodeValue, Resolved, Tree};

/// Maximum size of a configuration, in bytes, included files and values of variables included. A thousand pools of a hundred
/// backends fit.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Most files that one configuration includes.
const MAX_INCLUDED: usize = 1000;

/// Most entries of directories that are looked at for the patterns of one configuration.
const MAX_ENTRIES: usize = 100_000;

/// The key at the top that names files.
const INCLUDE: &str = "include";

/// A configuration that was read, and not understood yet.
pub(crate) struct Gathered {
    pub(crate) source: Source,
    /// All sections with their variables replaced; `None` after a syntax error, when further diagnostics would be guesses.
    pub(crate) tree: Option<Tree>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Files whose change, appearance or disappearance changes the configuration. The last part of a path may be a pattern.
    pub(crate) watched: BTreeSet<PathBuf>,
    pub(crate) include: Includes,
}

/// What the key `include` has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Includes {
    /// There is no such key.
    Nothing,
    /// Its files, if there are any, are part of the tree.
    Files,
    /// One of them is not, which is reported.
    Faulty,
}

/// Reads a file, and the files that it includes.
///
/// # Errors
/// The file itself cannot be read.
pub(crate) fn read_files(path: &Path, files: &dyn Files) -> Result<Gathered, Diagnostic> {
    let text = read_text(path, MAX_FILE)?;
    let mut reading = ConfigReading::new(&path.display().to_string(), &text);
    reading.watched.insert(path.to_owned());
    reading.main(files);
    reading.include(path, files);
    Ok(reading.finish())
}

/// As [`read_files`], of a text that is no file, and so includes none.
pub(crate) fn read_alone(name: &str, text: &str, files: &dyn Files) -> Gathered {
    let mut reading = ConfigReading::new(name, text);
    reading.main(files);
    for (pattern, at) in reading.patterns() {
        let diagnostic = Diagnostic::new(format!("`{pattern}` cannot be included: this configuration is no file"))
            .hint("write the sections of the included files into it");
        reading.error(at, diagnostic);
    }
    reading.finish()
}

struct ConfigReading {
    source: Source,
    tree: Tree,
    is_complete: bool,
    diagnostics: Vec<Diagnostic>,
    watched: BTreeSet<PathBuf>,
    include: Includes,
    /// Bytes that included files and variables may still have.
    left: usize,
}

impl ConfigReading {
    fn new(name: &str, text: &str) -> ConfigReading {
        // A byte order mark is not part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        ConfigReading {
            source: Source::new(name, text),
            tree: Tree::default(),
            is_complete: true,
            diagnostics: Vec::new(),
            watched: BTreeSet::new(),
            include: Includes::Nothing,
            left: (MAX_FILE as usize).saturating_sub(text.len()),
        }
    }

    fn main(&mut self, files: &dyn Files) {
        let text = self.source.texts().main();
        self.tree = self.parse(&text, 0, files);
        let Some(at) = self.section(INCLUDE) else { return };
        // A variable of a pattern may not be set.
        let is_faulty = self.elements(at).iter().any(|at| self.tree.is_faulty(*at));
        self.include = if is_faulty { Includes::Faulty } else { Includes::Files };
    }

    /// The tree of a text, its variables replaced.
    fn parse(&mut self, text: &str, base: usize, files: &dyn Files) -> Tree {
        let (mut tree, diagnostics, is_complete) = tree::parse_at(text, base);
        self.diagnostics.extend(diagnostics);
        self.is_complete &= is_complete;
        tree.drop_extensions();
        if is_complete {
            let variable = |name: &str| files.variable(name);
            let mut expansion = Expansion::new(&variable, self.left);
            self.diagnostics.extend(expansion.run(&mut tree, text, base));
            self.left = expansion.left();
        }
        tree
    }

    fn section(&self, name: &str) -> Option<NodeId> {
        section(&self.tree, name)
    }

    /// The patterns of the file, and their places. One that cannot be is reported when the key is read.
    fn patterns(&self) -> Vec<(FilePattern, NodeId)> {
        let Some(at) = self.section(INCLUDE) else { return Vec::new() };
        let text = |at: NodeId| match self.tree.resolve(at) {
            Some(Resolved::Text(text)) => Some(text),
            _ => self.tree.quoted(at),
        };
        let valid = self.elements(at).into_iter().filter(|at| !self.tree.is_faulty(*at));
        valid.filter_map(|at| Some((text(at)?.parse().ok()?, at))).collect()
    }

    /// The elements of a list, or what stands for a list of one.
    fn elements(&self, at: NodeId) -> Vec<NodeId> {
        match self.tree.value(at) {
            NodeValue::List(elements) => elements.clone(),
            NodeValue::Scalar { .. } | NodeValue::Map(_) => vec![at],
        }
    }

    /// Reads the included files.
    fn include(&mut self, path: &Path, files: &dyn Files) {
        if !self.is_complete {
            return;
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut seen: HashSet<PathBuf> = fs::canonicalize(path).into_iter().collect();
        let mut entries = MAX_ENTRIES;
        let mut included = 0;
        for (pattern, at) in self.patterns() {
            let Matches { files: found, watched, faults } = matches(folder, &pattern, &mut entries);
            self.watched.extend(watched);
            for fault in faults {
                self.error(at, fault);
            }
            let is_plain = !pattern.as_str().contains(['*', '?', '[']);
            for found in found {
                let is_new = fs::canonicalize(&found).map_or(true, |real| seen.insert(real));
                if !is_new && is_plain {
                    let name = found.display();
                    let diagnostic = Diagnostic::new(format!("{name} is included twice, or includes itself"));
                    self.error(at, diagnostic.hint("remove one of the two"));
                }
                if !is_new {
                    continue;
                }
                included += 1;
                if included > MAX_INCLUDED {
                    let diagnostic = Diagnostic::new(format!("more than {MAX_INCLUDED} files are included"));
                    self.error(at, diagnostic.hint("is the pattern the right one?"));
                    return;
                }
                self.watched.insert(found.clone());
                match read_included(&found, self.left as u64) {
                    Ok(text) => self.add(&found, &text, files),
                    Err(fault) => self.error(at, fault),
                }
            }
        }
    }

    /// Adds an included file.
    fn add(&mut self, path: &Path, text: &str, files: &dyn Files) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        self.left = self.left.saturating_sub(text.len());
        let base = self.source.add(&path.display().to_string(), text);
        let mut tree = self.parse(text, base, files);
        if !self.is_complete {
            return;
        }
        if let Some(again) = section(&tree, INCLUDE) {
            let diagnostic =
                Diagnostic::new("an included file includes no others").hint("name them in the file that is read first");
            self.note(vec![diagnostic.at(tree.key_span(again))]);
            tree.remove_section(again);
        }
        let faults = self.tree.join(tree);
        self.note(faults);
    }

    fn error(&mut self, at: NodeId, diagnostic: Diagnostic) {
        let diagnostic = self.tree.located(at, diagnostic);
        self.note(vec![diagnostic]);
    }

    fn note(&mut self, faults: Vec<Diagnostic>) {
        if faults.iter().any(|fault| fault.severity == Severity::Error) {
            self.include = Includes::Faulty;
        }
        self.diagnostics.extend(faults);
    }

    fn finish(self) -> Gathered {
        let ConfigReading { source, tree, is_complete, diagnostics, watched, include, .. } = self;
        Gathered { source, tree: is_complete.then_some(tree), diagnostics, watched, include }
    }
}

fn section(tree: &Tree, name: &str) -> Option<NodeId> {
    tree.children(tree.root()?).iter().copied().find(|child| tree.key(*child) == Some(name))
}

/// What a pattern stands for.
#[derive(Default)]
struct Matches {
    /// Sorted.
    files: Vec<PathBuf>,
    watched: BTreeSet<PathBuf>,
    faults: Vec<Diagnostic>,
}

/// The files of a pattern, relative to a directory. `entries` bounds what is looked at.
fn matches(folder: &Path, pattern: &FilePattern, entries: &mut usize) -> Matches {
    let mut found = Matches::default();
    let mut places = vec![if pattern.as_str().starts_with('/') { PathBuf::from("/") } else { folder.to_owned() }];
    let mut has_wildcard = false;
    for part in pattern.as_str().split('/').filter(|part| !part.is_empty()) {
        match part_of(part) {
            Some(Ok(plain)) => places.iter_mut().for_each(|place| place.push(plain)),
            Some(Err(wildcard)) => {
                let mut next = Vec::new();
                for place in places {
                    found.watched.insert(place.join(part));
                    match names(&place, entries) {
                        Ok(names) => next.extend(names.iter().filter(|it| wildcard.fits(it)).map(|it| place.join(it))),
                        // What an earlier wildcard stands for may be no directory.
                        Err(fault) if has_wildcard && fault.severity == Severity::Warning => {}
                        Err(fault) => found.faults.push(fault),
                    }
                }
                (places, has_wildcard) = (next, true);
            }
            // Refused before.
            None => return found,
        }
    }
    places.sort();
    if has_wildcard {
        found.watched.extend(places.iter().cloned());
        places.retain(|place| found.takes(place));
    }
    found.files = places;
    found
}

impl Matches {
    /// Whether what fits a pattern is to be read. All that is no directory is: that it cannot be is an error, as for a file that is named.
    fn takes(&mut self, place: &Path) -> bool {
        if place.is_dir() {
            let diagnostic = Diagnostic::new(format!("{} is a directory, which is not included", place.display()));
            self.faults.push(diagnostic.hint("a pattern stands for files: name those in it by another one").warning());
            return false;
        }
        // The part after a wildcard may be nowhere, and a file that was listed may be gone by now.
        fs::symlink_metadata(place).is_ok()
    }
}

/// The names in a directory. One that is not there has none, with a warning.
fn names(folder: &Path, entries: &mut usize) -> Result<Vec<String>, Diagnostic> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let told = |error: io::Error| {
        let name = listed.display();
        match error.kind() {
            io::ErrorKind::NotFound => Diagnostic::new(format!("there is no directory {name}"))
                .hint("no file is included; patterns are relative to the file that has them")
                .warning(),
            io::ErrorKind::NotADirectory => Diagnostic::new(format!("{name} is not a directory")).warning(),
            _ => Diagnostic::new(format!("cannot list {name}: {error}"))
                .hint("grant tidegate's user permission to read it"),
        }
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(listed).map_err(told)? {
        *entries = entries.checked_sub(1).ok_or_else(|| {
            Diagnostic::new(format!("more than {MAX_ENTRIES} files to look at"))
                .hint("is the pattern the right one? Name a directory of its own for included files")
        })?;
        // A name that is not UTF-8 fits no pattern.
        names.extend(entry.map_err(told)?.file_name().into_string());
    }
    Ok(names)
}

/// An included file. Unlike the one that is named, it is no pipe: a reload could wait for it for ever.
fn read_included(path: &Path, limit: u64) -> Result<String, Diagnostic> {
    if fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir()) {
        let diagnostic = Diagnostic::new(format!("{} is no regular file", path.display()));
        return Err(diagnostic.hint("an included file is read at every reload"));
    }
    let dangling = fs::read_link(path).ok().filter(|_| matches!(path.try_exists(), Ok(false)));
    if let Some(target) = dangling {
        let (name, target) = (path.display(), target.display());
        let diagnostic = Diagnostic::new(format!("{name} is a symbolic link to {target}, which does not exist"));
        return Err(diagnostic.hint("remove the link, or restore the file"));
    }
    read_text(path, limit)
}

/// The text of a file of at most this size in bytes.
fn read_text(path: &Path, limit: u64) -> Result<String, Diagnostic> {
    let name = path.display();
    let unreadable = |error: io::Error| {
        let diagnostic = Diagnostic::new(format!("cannot read {name}: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound => diagnostic.hint("check the path; `tidegate check FILE` tries it"),
            io::ErrorKind::PermissionDenied => diagnostic.hint("grant tidegate's user read permission"),
            io::ErrorKind::IsADirectory => diagnostic.hint("write the path of a file in it"),
            _ => diagnostic,
        }
    };
    let mut bytes = Vec::new();
    // The size in the metadata is no bound: a pipe has none, and a file may grow.
    File::open(path).map_err(unreadable)?.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        let (what, hint) = match limit {
            MAX_FILE => (format!("{name} is larger than 16 MiB"), "this is probably not a configuration file"),
            _ => (
                format!("{name} makes the configuration larger than 16 MiB"),
                "is the pattern of the included files the right one?",
            ),
        };
        return Err(Diagnostic::new(what).hint(hint));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::new(format!("{name}:{line}: not UTF-8 text")).hint("save the file as UTF-8")
    })
}
