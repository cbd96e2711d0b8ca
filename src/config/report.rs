//! Diagnostics of a configuration, and their rendering: place, line, caret, remedy.

use std::fmt;
use std::io::{self, IsTerminal};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{Source, SourceText};

/// Most diagnostics shown of one file: more would not help to repair it.
const SHOWN: usize = 100;

/// Longest part of one line that is shown, in bytes: a line can be as long as the file.
const LINE_SHOWN: usize = 400;

/// Longest quotation of user input, in characters.
const QUOTED: usize = 80;

/// User input inside a sentence: on one line, truncated, control characters escaped.
pub(crate) fn shown(text: &str) -> impl fmt::Display {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == QUOTED {
            out.push_str("...");
            break;
        }
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

/// User input inside a suggestion, quoted where YAML requires it.
pub(crate) fn quoted(text: &str) -> String {
    let text = shown(text).to_string();
    if text.starts_with(['[', '*', '&', '!', '{', '"', '\'', '%', '@', '`']) { format!("\"{text}\"") } else { text }
}

/// Whether a diagnostic rejects the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is rejected.
    Error,
    /// The configuration is accepted, and probably not what was meant.
    Warning,
}

/// An error or a warning about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// One sentence. It begins with the key's path, such as `pools[1].backends[0].weight`, once that is known.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
    /// Bytes of the file that it is about; `None` for the file as a whole.
    pub span: Option<Range<usize>>,
    /// A second place and its label, such as the first use of a name.
    pub related: Option<(Range<usize>, String)>,
}

impl Diagnostic {
    /// An error.
    pub(crate) fn new(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, message: message.into(), hint: None, span: None, related: None }
    }

    /// As a warning.
    pub(crate) fn warning(self) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Diagnostic {
        Diagnostic { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn at(self, span: Range<usize>) -> Diagnostic {
        Diagnostic { span: Some(span), ..self }
    }

    /// With its places that much further.
    pub(crate) fn move_by(&mut self, distance: usize) {
        let related = self.related.iter_mut().map(|(span, _)| span);
        for span in self.span.iter_mut().chain(related) {
            *span = span.start + distance..span.end + distance;
        }
    }

    pub(crate) fn related(self, span: Range<usize>, label: impl Into<String>) -> Diagnostic {
        Diagnostic { related: Some((span, label.into())), ..self }
    }
}

/// Whether a report is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences.
    Plain,
    /// Colours of a terminal.
    Coloured,
}

impl Style {
    /// Colours when stderr is a terminal and `NO_COLOR` is not set.
    pub fn of_stderr() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if !refused && io::stderr().is_terminal() { Style::Coloured } else { Style::Plain }
    }
}

impl Source {
    /// `file:line:column` of a diagnostic, or the file's name when it is about the whole file.
    pub(crate) fn place_of(&self, diagnostic: &Diagnostic) -> String {
        match &diagnostic.span {
            Some(span) => self.place(span),
            None => self.main().name.to_string(),
        }
    }

    /// All diagnostics, in the order given, one paragraph each.
    pub(crate) fn render(&self, diagnostics: &[Diagnostic], style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let mut out = String::new();
        for diagnostic in diagnostics.iter().take(SHOWN) {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&renderer.render(&[self.group(diagnostic)]));
            out.push('\n');
        }
        if let Some(more) = diagnostics.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            out.push_str(&format!("\n... and {more} more\n"));
        }
        out
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.message.as_str());
        let mut group = Group::with_title(title);
        if let Some(span) = &diagnostic.span {
            let mut snippet = self.snippet(AnnotationKind::Primary, span, None);
            if let Some((other, label)) = &diagnostic.related {
                // Snippets are one line each: a distant place costs nothing to show.
                group = group.element(snippet);
                snippet = self.snippet(AnnotationKind::Context, other, Some(label));
            }
            group = group.element(snippet);
        }
        if let Some(hint) = &diagnostic.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        group
    }

    /// The line in which `span` begins, with its part of the span marked.
    fn snippet<'a>(
        &'a self,
        kind: AnnotationKind,
        span: &Range<usize>,
        label: Option<&'a str>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let SourceText { name, text, .. } = self.of(span);
        let span = self.of(span).local(span);
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[line_start..];
        let line = rest.split('\n').next().unwrap_or(rest);
        let line = line.strip_suffix('\r').unwrap_or(line);
        // Truncates the end only: the column must stay right.
        let keep = (start - line_start + LINE_SHOWN).min(line.len());
        let line = &line[..floor_boundary(line, keep)];
        let from = (start - line_start).min(line.len());
        let to = floor_boundary(line, span.end.saturating_sub(line_start)).max(from);
        let number = text[..line_start].bytes().filter(|byte| *byte == b'\n').count() + 1;
        let annotation = kind.span(from..to).label(label);
        Snippet::source(line).line_start(number).path(&**name).annotation(annotation)
    }
}

/// The last boundary of a character at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The candidate that `word` was most likely meant to be.
pub(crate) fn similar<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer one is no key, and slow to compare.
    if word.len() > QUOTED {
        return None;
    }
    let word = word.to_lowercase();
    let limit = 1 + word.chars().count() / 4;
    let mut candidates = candidates.into_iter().collect::<Vec<_>>();
    // Abbreviations and longer forms: `least_conn`, `warning`.
    let extends = |a: &str, b: &str| b.chars().count() >= 3 && a.starts_with(b);
    let related = |c: &&str| extends(c, &word) || extends(&word, c);
    if candidates.iter().any(related) {
        candidates.retain(related);
        return candidates.into_iter().min_by_key(|candidate| candidate.len());
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            // A distance of the whole length has nothing in common.
            *distance <= limit && *distance < candidate.chars().count()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typo_is_recognised_and_another_word_is_not() {
        let keys = ["balance", "backends", "health", "on_down", "name"];
        assert_eq!(similar("balanse", keys), Some("balance"));
        assert_eq!(similar("backend", keys), Some("backends"));
        assert_eq!(similar("Name", keys), Some("name"));
        assert_eq!(similar("ondown", keys), Some("on_down"));
        assert_eq!(similar("back", keys), Some("backends"));
        assert_eq!(similar("names", keys), Some("name"));
        assert_eq!(similar("colour", keys), None);
        assert_eq!(similar("", keys), None);
        assert_eq!(similar(&"name".repeat(100), keys), None);
    }

    #[test]
    fn caret_is_under_the_character_after_wide_ones() {
        let source = Source::new("x.yaml", "a: 1\nnäme: wörd\r\nb: 2\n");
        let at = source.main().text.find("wörd").unwrap();
        let diagnostic = Diagnostic::new("bad").hint("good").at(at..at + "wörd".len());
        let shown = source.render(&[diagnostic], Style::Plain);
        assert_eq!(shown, "error: bad\n --> x.yaml:2:7\n  |\n2 | näme: wörd\n  |       ^^^^\n  |\n  = help: good\n");
    }

    #[test]
    fn long_line_and_many_diagnostics_are_truncated() {
        let text = format!("a: {}", "x".repeat(1 << 20));
        let source = Source::new("x.yaml", &text);
        let diagnostic = Diagnostic::new("too long").at(3..text.len());
        let shown = source.render(&vec![diagnostic; 1000], Style::Plain);
        assert!(shown.len() < 200_000, "{}", shown.len());
        assert!(shown.ends_with("... and 900 more\n"));
    }

    #[test]
    fn places_outside_the_text_do_not_panic() {
        for text in ["", "ä", "a\n", "a\r\n"] {
            let source = Source::new("x.yaml", text);
            for start in 0..6 {
                let diagnostic = Diagnostic::new("bad").at(start..start + 1);
                assert!(source.render(&[diagnostic], Style::Plain).contains("x.yaml"));
            }
        }
    }
}
