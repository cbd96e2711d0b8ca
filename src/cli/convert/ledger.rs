//! What has become of each statement of the files that are converted.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use super::quantity::period;

/// A statement of a [`Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatementId(usize);

/// Longest text of a statement in a report, in characters.
const MAX_QUOTED: usize = 60;

/// What has become of a statement. Of a statement that is several of these, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Not looked at yet.
    Open,
    /// Read, and used by nothing so far.
    Heard,
    /// Reported with the block that it is in.
    Within,
    /// tidegate does so by itself.
    NotNeeded,
    Translated,
    /// Something of it has no equivalent.
    Left,
    /// Without an equivalent, connections go elsewhere than before, or are let in that were refused.
    Diverted,
}

/// A value that a statement says. It is used where it comes into the draft; one that nothing uses is reported.
#[derive(Clone, Debug)]
pub(super) struct Said<T>(Option<(T, StatementId)>);

impl<T> Default for Said<T> {
    fn default() -> Said<T> {
        Said(None)
    }
}

/// By the value: it does not matter which statement says it.
impl<T: PartialEq> PartialEq for Said<T> {
    fn eq(&self, other: &Said<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for Said<T> {}

impl<T> Said<T> {
    /// The statement says this, in the place of what was said before.
    pub(super) fn say(&mut self, value: T, id: StatementId, ledger: &mut Ledger) {
        ledger.heard(id);
        self.0 = Some((value, id));
    }

    /// The value, without using it.
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(value, _)| value)
    }

    pub(super) fn id(&self) -> Option<StatementId> {
        self.0.as_ref().map(|(_, id)| *id)
    }
}

impl<T: Clone> Said<T> {
    /// The value; its statement is translated.
    pub(super) fn used(&self, ledger: &mut Ledger) -> Option<T> {
        let (value, id) = self.0.as_ref()?;
        ledger.translated(*id);
        Some(value.clone())
    }
}

/// The longest of several durations, of which `key` takes one. The others are reported.
pub(super) fn longest<'s>(
    key: &str,
    said: impl IntoIterator<Item = &'s Said<Duration>>,
    ledger: &mut Ledger,
) -> Option<Duration> {
    let said: Vec<&Said<Duration>> = said.into_iter().collect();
    let longest = said.iter().filter_map(|said| said.get()).max().copied()?;
    for said in said {
        match said.0 {
            Some((length, id)) if length == longest => ledger.translated(id),
            Some((_, id)) => {
                ledger.left(
                    id,
                    format!("`{key}` is one for both directions and all servers: {} applies", period(longest)),
                );
            }
            None => {}
        }
    }
    Some(longest)
}

struct Statement {
    file: usize,
    first: usize,
    last: usize,
    text: String,
    outcome: Outcome,
    remarks: Vec<(Outcome, Cow<'static, str>)>,
}

/// One line of the report.
pub(super) struct Remark<'l> {
    pub(super) file: &'l str,
    /// From 1.
    pub(super) first: usize,
    /// As `first`, unless the remark is of a whole block.
    pub(super) last: usize,
    pub(super) text: &'l str,
    pub(super) why: &'l str,
}

/// All statements of the files that were read, each with one outcome.
#[derive(Default)]
pub(super) struct Ledger {
    files: Vec<String>,
    statements: Vec<Statement>,
    /// Options of statements that several sections share, and why they have no effect in one of them.
    idle: Vec<(StatementId, String, &'static str)>,
    /// Such options that have one.
    busy: Vec<(StatementId, String)>,
}

impl Ledger {
    /// Names a file; the number is for [`Ledger::add`].
    pub(super) fn file(&mut self, name: &str) -> usize {
        self.files.push(one_line(name));
        self.files.len() - 1
    }

    pub(super) fn add(&mut self, file: usize, first: usize, last: usize, text: &str) -> StatementId {
        let (text, remarks) = (quoted(text), Vec::new());
        self.statements.push(Statement { file, first, last, text, outcome: Outcome::Open, remarks });
        StatementId(self.statements.len() - 1)
    }

    /// It is understood. Unless something uses it, it has no effect.
    pub(super) fn heard(&mut self, id: StatementId) {
        self.reach(id, Outcome::Heard);
    }

    pub(super) fn translated(&mut self, id: StatementId) {
        self.reach(id, Outcome::Translated);
    }

    /// It, or a part of it, is what tidegate does anyway.
    pub(super) fn not_needed(&mut self, id: StatementId, why: impl Into<Cow<'static, str>>) {
        self.remark(id, Outcome::NotNeeded, why.into());
    }

    /// It, or a part of it, has no equivalent.
    pub(super) fn left(&mut self, id: StatementId, why: impl Into<Cow<'static, str>>) {
        self.remark(id, Outcome::Left, why.into());
    }

    /// Without it, connections go elsewhere than before, or are let in that were refused.
    pub(super) fn diverted(&mut self, id: StatementId, why: impl Into<Cow<'static, str>>) {
        self.remark(id, Outcome::Diverted, why.into());
    }

    /// As [`Ledger::not_needed`], if nothing has become of it so far.
    pub(super) fn unused(&mut self, id: StatementId, why: &'static str) {
        if self.statements[id.0].outcome <= Outcome::Heard {
            self.not_needed(id, why);
        }
    }

    /// An option of the statement has an effect in this section.
    pub(super) fn option_used(&mut self, id: StatementId, option: &str) {
        self.busy.push((id, option.to_owned()));
    }

    /// An option of the statement has none in this section. It is reported unless another section uses it.
    pub(super) fn option_unused(&mut self, id: StatementId, option: &str, why: &'static str) {
        self.idle.push((id, option.to_owned(), why));
    }

    /// Members of a block of which enough is said elsewhere.
    pub(super) fn within(&mut self, members: &[StatementId]) {
        members.iter().for_each(|member| self.reach(*member, Outcome::Within));
    }

    /// A block with all that is in it.
    pub(super) fn block(&mut self, head: StatementId, members: &[StatementId], outcome: Outcome, why: &'static str) {
        self.remark(head, outcome, why.into());
        for member in members {
            self.reach(*member, Outcome::Within);
            let Statement { file, last, .. } = self.statements[member.0];
            let head = &mut self.statements[head.0];
            // What the block includes has lines of its own.
            if head.file == file {
                head.last = head.last.max(last);
            }
        }
    }

    /// Reports statements that nothing has looked at, or used.
    pub(super) fn close(&mut self) {
        let busy: HashSet<(usize, String)> = self.busy.drain(..).map(|(id, option)| (id.0, option)).collect();
        for (id, option, why) in std::mem::take(&mut self.idle) {
            if !busy.contains(&(id.0, option.clone())) {
                self.not_needed(id, format!("{option}: {why}"));
            }
        }
        for index in 0..self.statements.len() {
            let id = StatementId(index);
            match self.statements[index].outcome {
                Outcome::Open => self.left(id, "unknown here: tidegate has nothing like it"),
                Outcome::Heard => self.not_needed(id, "nothing in this file that it applies to"),
                _ => {}
            }
        }
    }

    /// Remarks of one outcome, in the order of their lines.
    pub(super) fn remarks(&self, outcome: Outcome) -> Vec<Remark<'_>> {
        let mut remarks = Vec::new();
        for statement in &self.statements {
            for (_, why) in statement.remarks.iter().filter(|(of, _)| *of == outcome) {
                let Statement { first, last, text, .. } = statement;
                let file = &self.files[statement.file];
                remarks.push((statement.file, Remark { file, first: *first, last: *last, text, why }));
            }
        }
        remarks.sort_by_key(|(file, remark)| (*file, remark.first));
        remarks.into_iter().map(|(_, remark)| remark).collect()
    }

    /// The names of the files that were read.
    pub(super) fn files(&self) -> &[String] {
        &self.files
    }

    /// Of each statement: file, first and last line, outcome.
    #[cfg(test)]
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (usize, usize, usize, Outcome)> {
        self.statements.iter().map(|statement| (statement.file, statement.first, statement.last, statement.outcome))
    }

    fn remark(&mut self, id: StatementId, outcome: Outcome, why: Cow<'static, str>) {
        self.reach(id, outcome);
        // A reason may quote a word, and words of nginx may have line breaks.
        let why = if why.contains(char::is_control) { one_line(&why).into() } else { why };
        let remarks = &mut self.statements[id.0].remarks;
        // Lines that several sections share come here several times.
        if !remarks.iter().any(|(of, known)| *of == outcome && *known == why) {
            remarks.push((outcome, why));
        }
    }

    fn reach(&mut self, id: StatementId, outcome: Outcome) {
        let known = &mut self.statements[id.0].outcome;
        *known = outcome.max(*known);
    }
}

/// Text on one line without control characters.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|letter| !letter.is_control()).collect()
}

/// A statement as a report shows it.
fn quoted(text: &str) -> String {
    let text = one_line(text);
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
