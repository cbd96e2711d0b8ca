//! A serde deserializer over a [`Tree`] that collects errors instead of stopping at the first.
//!
//! Unknown keys are reported and skipped. An unreadable value inside a [`Located`](super::located::Located) is reported
//! and becomes `None`. Every key of the raw configuration is a `Located`: one pass finds all errors.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::located::{LIST, LOCATED};
use super::report::{Diagnostic, shown, similar};
use super::tree::{NodeId, NodeValue, Resolved, Tree};
use super::{foreign, unknown};

/// Reads a tree. The result is `None` only when the document is not a mapping at all.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(tree: &Tree) -> (Option<T>, Vec<Diagnostic>) {
    let diagnostics = RefCell::new(Vec::new());
    let Some(root) = tree.root() else {
        return (None, Vec::new());
    };
    let cursor = Cursor { tree, id: root, diagnostics: &diagnostics };
    let value = match T::deserialize(cursor) {
        Ok(value) => Some(value),
        Err(error) => {
            cursor.note(error);
            None
        }
    };
    (value, diagnostics.into_inner())
}

/// A value that could not be read. Without a place of its own, that of the innermost enclosing `Located` counts.
#[derive(Debug)]
pub(crate) struct DecodeError {
    /// Boxed: a result stays small.
    diagnostic: Box<Diagnostic>,
    at: Option<NodeId>,
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl de::Error for DecodeError {
    /// The first line is the message, the second one the hint.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let text = message.to_string();
        let diagnostic = match text.split_once('\n') {
            Some((message, hint)) => Diagnostic::new(message).hint(hint),
            None => Diagnostic::new(text),
        };
        DecodeError { diagnostic: Box::new(diagnostic), at: None }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Unit => "nothing".to_owned(),
            de::Unexpected::Bool(value) => format!("`{value}`"),
            de::Unexpected::Unsigned(value) => format!("the number {value}"),
            de::Unexpected::Signed(value) => format!("the number {value}"),
            de::Unexpected::Float(value) => format!("the number {value}"),
            de::Unexpected::Str(text) => format!("`{}`", shown(text)),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Map => "a mapping".to_owned(),
            other => other.to_string(),
        };
        <Self as de::Error>::custom(format_args!("expected {expected}, found {found}"))
    }
}

/// One value of the tree, about to be read.
#[derive(Clone, Copy)]
struct Cursor<'t> {
    tree: &'t Tree,
    id: NodeId,
    diagnostics: &'t RefCell<Vec<Diagnostic>>,
}

impl<'t> Cursor<'t> {
    fn at(self, id: NodeId) -> Cursor<'t> {
        Cursor { id, ..self }
    }

    fn error(self, diagnostic: Diagnostic) -> DecodeError {
        DecodeError { diagnostic: Box::new(diagnostic), at: Some(self.id) }
    }

    fn note(self, error: DecodeError) {
        let diagnostic = self.tree.located(error.at.unwrap_or(self.id), *error.diagnostic);
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    fn mismatch(self, expected: &str) -> DecodeError {
        let found = match self.tree.value(self.id) {
            NodeValue::List(_) => "a list".to_owned(),
            NodeValue::Map(_) => "a mapping".to_owned(),
            NodeValue::Scalar { text, .. } => match self.tree.resolve(self.id) {
                Some(Resolved::Null) => "nothing".to_owned(),
                Some(Resolved::Int(_) | Resolved::Float(_)) => {
                    format!("the number {}", shown(text))
                }
                Some(Resolved::Bool(_)) => format!("`{text}`"),
                _ => format!("`{}`", shown(text)),
            },
        };
        self.error(Diagnostic::new(format!("expected {expected}, found {found}")))
    }

    /// The entries with known keys; reports the others.
    fn known(self, children: &[NodeId], fields: &'static [&'static str]) -> Vec<NodeId> {
        let mut known = Vec::with_capacity(children.len());
        for child in children {
            let key = self.tree.key(*child).unwrap_or_default();
            if fields.contains(&key) {
                known.push(*child);
                continue;
            }
            let path = self.tree.path(*child);
            let hint = unknown::hint(self.tree, *child, fields);
            let diagnostic = Diagnostic::new(format!("unknown key `{path}`")).hint(hint);
            let span = self.tree.key_span(*child);
            self.diagnostics.borrow_mut().push(diagnostic.at(span));
        }
        known
    }
}

impl<'de> Deserializer<'de> for Cursor<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match (self.tree.value(self.id), self.tree.resolve(self.id)) {
            (NodeValue::List(children), _) => visitor.visit_seq(List { cursor: self, children, next: 0 }),
            (NodeValue::Map(children), _) => visitor.visit_map(Map { cursor: self, children, next: 0 }),
            (_, Some(Resolved::Bool(value))) => visitor.visit_bool(value),
            (_, Some(Resolved::Int(value))) => visitor.visit_i64(value),
            (_, Some(Resolved::Float(value))) => visitor.visit_f64(value),
            (_, Some(Resolved::Text(text))) => visitor.visit_str(text),
            (_, Some(Resolved::Null) | None) => visitor.visit_unit(),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.tree.resolve(self.id) {
            Some(Resolved::Bool(value)) => visitor.visit_bool(value),
            Some(Resolved::Text(text)) if matches!(text, "on" | "off" | "yes" | "no") => Err(self.error(
                Diagnostic::new(format!("expected true or false, found `{text}`"))
                    .hint(format!("write {}", matches!(text, "on" | "yes"))),
            )),
            Some(Resolved::Text("true" | "false")) => {
                Err(self.error(Diagnostic::new("expected true or false, found text").hint("remove the quotes")))
            }
            _ => Err(self.mismatch("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.tree.resolve(self.id) {
            Some(Resolved::Text(text)) => visitor.visit_str(text),
            Some(Resolved::Int(_) | Resolved::Float(_) | Resolved::Bool(_)) => {
                if let Some(text) = self.tree.quoted(self.id) {
                    return visitor.visit_str(text);
                }
                let mut error = self.mismatch("text");
                let text = self.tree.text(self.id).unwrap_or_default();
                let text = self.tree.written(self.id).map_or(text, |written| &written.text);
                error.diagnostic.hint = Some(format!("quote it: \"{text}\""));
                Err(error)
            }
            _ => Err(self.mismatch("text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    /// For what is text, and must not be a number in a file although it has digits only: in a variable, it may.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match (self.tree.written(self.id), self.tree.text(self.id)) {
            (Some(_), Some(text)) => visitor.visit_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.tree.is_null(self.id) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match name {
            LOCATED => visitor.visit_seq(LocatedAccess { cursor: self, given: false }),
            LIST => match self.tree.value(self.id) {
                NodeValue::List(children) => visitor.visit_seq(List { cursor: self, children, next: 0 }),
                _ => visitor.visit_seq(List { cursor: self, children: &[self.id], next: 0 }),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.tree.value(self.id) {
            NodeValue::List(children) => visitor.visit_seq(List { cursor: self, children, next: 0 }),
            NodeValue::Map(_) => {
                let mut error = self.mismatch("a list");
                error.diagnostic.hint = Some("begin each entry with `- `".to_owned());
                Err(error)
            }
            NodeValue::Scalar { text, plain, .. } => {
                let mut error = self.mismatch("a list");
                if let Some(Resolved::Text(_)) = self.tree.resolve(self.id) {
                    let quote = if *plain { "" } else { "\"" };
                    error.diagnostic.hint = Some(format!("write a list: [{quote}{}{quote}]", shown(text)));
                }
                Err(error)
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.tree.value(self.id) {
            NodeValue::Map(children) => visitor.visit_map(Map { cursor: self, children, next: 0 }),
            _ => Err(self.mismatch("a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let NodeValue::Map(children) = self.tree.value(self.id) else {
            let mut error = self.mismatch("a mapping");
            error.diagnostic.hint = foreign::short_form(self.tree, self.id)
                .or_else(|| (!fields.is_empty()).then(|| format!("valid keys: {}", fields.join(", "))));
            return Err(error);
        };
        let known = self.known(children, fields);
        visitor.visit_map(Map { cursor: self, children: &known, next: 0 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let expected = one_of(variants);
        let section = self.tree.section(self.id);
        let text = match self.tree.resolve(self.id) {
            Some(Resolved::Text(text)) => text,
            // YAML 1.1 parsers read `off` and `on` so.
            Some(Resolved::Bool(false)) if variants.contains(&"off") => "off",
            Some(Resolved::Bool(true)) if variants.contains(&"on") => "on",
            Some(Resolved::Bool(_) | Resolved::Int(_) | Resolved::Float(_)) => {
                let mut error = self.mismatch(&expected);
                let written = self.tree.text(self.id).unwrap_or_default();
                error.diagnostic.hint = foreign::value(&section, written).map(|meant| format!("write `{meant}`"));
                return Err(error);
            }
            Some(Resolved::Null) | None => return Err(self.mismatch(&expected)),
        };
        if let Some(variant) = variants.iter().find(|variant| **variant == text) {
            return visitor.visit_enum(IntoDeserializer::<DecodeError>::into_deserializer(*variant));
        }
        let diagnostic = Diagnostic::new(format!("expected {expected}, found `{}`", shown(text)));
        let meant = foreign::value(&section, text).or_else(|| similar(text, variants.iter().copied()));
        Err(self.error(match meant {
            Some(meant) => diagnostic.hint(format!("did you mean `{meant}`?")),
            None => diagnostic,
        }))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct ignored_any
    }
}

/// `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Elements of a list.
struct List<'t, 'c> {
    cursor: Cursor<'t>,
    children: &'c [NodeId],
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'_, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some(child) = self.children.get(self.next) else {
            return Ok(None);
        };
        self.next += 1;
        seed.deserialize(self.cursor.at(*child)).map(Some)
    }
}

/// Entries of a mapping.
struct Map<'t, 'c> {
    cursor: Cursor<'t>,
    children: &'c [NodeId],
    next: usize,
}

impl<'de> de::MapAccess<'de> for Map<'_, '_> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some(child) = self.children.get(self.next) else {
            return Ok(None);
        };
        let key = self.cursor.tree.key(*child).unwrap_or_default();
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let child = self.children.get(self.next).copied().unwrap_or(self.cursor.id);
        self.next += 1;
        seed.deserialize(self.cursor.at(child))
    }
}

/// Yields the place of a `Located`, then its value. A failure is reported, and yields no value.
struct LocatedAccess<'t> {
    cursor: Cursor<'t>,
    given: bool,
}

impl<'de> SeqAccess<'de> for LocatedAccess<'_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        if !self.given {
            self.given = true;
            return seed.deserialize(self.cursor.id.number().into_deserializer()).map(Some);
        }
        if self.cursor.tree.is_faulty(self.cursor.id) {
            return Ok(None);
        }
        match seed.deserialize(self.cursor) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.cursor.note(error);
                Ok(None)
            }
        }
    }
}
