//! The texts of a configuration, and the places in them.
//!
//! A span counts bytes over all texts, as if they were one after the other: a place knows its file without a field for it.

use std::ops::Range;
use std::sync::Arc;

/// One text, and its name in reports.
#[derive(Clone, Debug)]
pub(crate) struct SourceText {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
    /// Where it begins among all texts.
    base: usize,
    /// Where each line but the first begins. A report with many places looks at the text once.
    lines: Arc<[usize]>,
}

/// The text of a configuration file, then those of the files that it includes.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// At least one.
    texts: Vec<SourceText>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Source {
        Source { texts: vec![SourceText::new(name, text, 0)] }
    }

    /// Adds another text. Returns where its spans begin.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> usize {
        // One byte between two texts: the end of one is not the beginning of the next.
        let base = self.texts.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.texts.push(SourceText::new(name, text, base));
        base
    }

    /// The texts with their names, the configuration file's first.
    pub(crate) fn texts(&self) -> ConfigTexts {
        ConfigTexts(self.texts.iter().map(|it| (Arc::clone(&it.name), Arc::clone(&it.text))).collect())
    }

    /// The configuration file's.
    pub(crate) fn main(&self) -> &SourceText {
        &self.texts[0]
    }

    /// The text that a span is in.
    pub(crate) fn of(&self, span: &Range<usize>) -> &SourceText {
        let following = self.texts.partition_point(|it| it.base <= span.start);
        &self.texts[following.saturating_sub(1)]
    }

    /// `file:line:column` of a span.
    pub(crate) fn place(&self, span: &Range<usize>) -> String {
        let text = self.of(span);
        let (line, column) = text.line_and_column(span);
        format!("{}:{line}:{column}", text.name)
    }
}

impl SourceText {
    fn new(name: &str, text: &str, base: usize) -> SourceText {
        let lines = text.match_indices('\n').map(|(end, _)| end + 1).collect();
        SourceText { name: name.into(), text: text.into(), base, lines }
    }

    /// Where a span is in this text.
    pub(crate) fn local(&self, span: &Range<usize>) -> Range<usize> {
        span.start.saturating_sub(self.base)..span.end.saturating_sub(self.base)
    }

    /// Where a span begins, both from 1.
    pub(crate) fn line_and_column(&self, span: &Range<usize>) -> (usize, usize) {
        let place = self.local(span).start;
        let before = self.lines.partition_point(|line| *line <= place);
        let line = before.checked_sub(1).map_or(0, |last| self.lines[last]);
        (before + 1, self.text.get(line..place).unwrap_or_default().chars().count() + 1)
    }
}

/// The texts of a configuration file and of those that it includes, each with its name: equal if nothing has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigTexts(Arc<[(Arc<str>, Arc<str>)]>);

impl ConfigTexts {
    /// The text of the configuration file itself; empty if there was none to be had.
    pub fn main(&self) -> Arc<str> {
        self.0.first().map_or_else(|| Arc::from(""), |(_, text)| Arc::clone(text))
    }

    /// Whether there was nothing to be had.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, text)| text.is_empty())
    }

    /// The names of the included files.
    pub fn included(&self) -> impl Iterator<Item = &str> {
        self.0.iter().skip(1).map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_counts_lines_and_characters_from_1() {
        let source = Source::new("x", "ab\nä: 1\n\nc");
        let places =
            [(0, "x:1:1"), (2, "x:1:3"), (3, "x:2:1"), (5, "x:2:2"), (9, "x:3:1"), (10, "x:4:1"), (11, "x:4:2")];
        for (at, expected) in places {
            assert_eq!(source.place(&(at..at)), expected, "{at}");
        }
    }

    #[test]
    fn span_knows_its_text() {
        let mut source = Source::new("a", "one\ntwo");
        assert_eq!((source.add("b", ""), source.add("c", "x\ny")), (8, 9));
        for (at, expected) in [(0, "a:1:1"), (7, "a:2:4"), (8, "b:1:1"), (9, "c:1:1"), (11, "c:2:1"), (12, "c:2:2")] {
            assert_eq!(source.place(&(at..at)), expected, "{at}");
        }
        assert_eq!(source.texts().included().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(&*source.texts().main(), "one\ntwo");
    }
}
