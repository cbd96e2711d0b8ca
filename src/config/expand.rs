//! `${NAME}` and `${NAME:-default}` in a value. Pure: the environment is a function.

use std::ops::Range;

/// A value with the variables replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) bytes: Vec<u8>,
    /// The variables, in their order.
    pub(crate) names: Vec<String>,
}

/// Why a value cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpandFault {
    pub(crate) message: String,
    pub(crate) hint: String,
    /// The reference, as written.
    pub(crate) at: Range<usize>,
}

/// What the environment has of a variable.
pub(crate) type Variable = Option<Vec<u8>>;

/// Replaces each `${NAME}` by the variable, `${NAME:-default}` by the default where the variable is unset or empty, and `$$` by
/// `$`. `None` if there is nothing to replace. What a variable contains is not expanded again.
///
/// # Errors
/// A variable without default is not set, or a reference is malformed.
pub(crate) fn expand(text: &[u8], variable: &dyn Fn(&str) -> Variable) -> Result<Option<Expanded>, ExpandFault> {
    let mut expanded = Expanded { bytes: Vec::new(), names: Vec::new() };
    let (mut at, mut has_changed) = (0, false);
    while let Some(dollar) = find(&text[at..], b"$").map(|found| at + found) {
        expanded.bytes.extend_from_slice(&text[at..dollar]);
        let rest = &text[dollar..];
        at = if rest.starts_with(b"${") {
            let reference = Reference::parse(rest).map_err(|fault| fault.at(dollar))?;
            expanded.bytes.extend_from_slice(&reference.value(variable).map_err(|fault| fault.at(dollar))?);
            expanded.names.push(reference.name.to_owned());
            dollar + reference.length
        } else {
            expanded.bytes.push(b'$');
            // A dollar before anything else is a dollar.
            dollar + if rest.starts_with(b"$$") { 2 } else { 1 }
        };
        has_changed |= at > dollar + 1;
    }
    expanded.bytes.extend_from_slice(&text[at..]);
    Ok(has_changed.then_some(expanded))
}

/// Text that [`expand`] makes this text of.
pub(crate) fn escape(text: &str) -> String {
    if text.contains("$$") || text.contains("${") { text.replace('$', "$$") } else { text.to_owned() }
}

/// As [`escape`], of bytes.
pub(crate) fn escape_bytes(bytes: &[u8]) -> Vec<u8> {
    let dollars = |byte: &u8| std::iter::repeat_n(*byte, if *byte == b'$' { 2 } else { 1 });
    match find(bytes, b"$$").or(find(bytes, b"${")) {
        Some(_) => bytes.iter().flat_map(dollars).collect(),
        None => bytes.to_vec(),
    }
}

/// One `${...}`.
struct Reference<'t> {
    name: &'t str,
    default: Option<&'t [u8]>,
    /// Bytes, from the dollar to the brace.
    length: usize,
}

impl<'t> Reference<'t> {
    /// Of text that begins with one.
    fn parse(text: &'t [u8]) -> Result<Reference<'t>, ExpandFault> {
        const HINT: &str = "write ${NAME} or ${NAME:-default}; $$ is a dollar";
        let Some(end) = find(text, b"}") else {
            let length = 2 + name_length(&text[2..]);
            return Err(fault("`${` without `}`".to_owned(), HINT.to_owned(), length));
        };
        let (inside, length) = (&text[2..end], end + 1);
        let malformed = |hint: &str| {
            let shown: String = String::from_utf8_lossy(&text[..length]).chars().take(60).collect();
            fault(format!("`{}` is not a variable", shown.escape_debug()), hint.to_owned(), length)
        };
        let (name, rest) = inside.split_at(name_length(inside));
        let default = match rest {
            [] => None,
            [b':', b'-', default @ ..] if find(default, b"${").is_some() => {
                return Err(malformed("a default is plain text: it has no variable and no `}` in it"));
            }
            [b':', b'-', default @ ..] => Some(default),
            _ => return Err(malformed(HINT)),
        };
        let name = std::str::from_utf8(name).unwrap_or_default();
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(malformed("a name has letters, digits and `_`, and does not begin with a digit"));
        }
        Ok(Reference { name, default, length })
    }

    fn value(&self, variable: &dyn Fn(&str) -> Variable) -> Result<Vec<u8>, ExpandFault> {
        match (variable(self.name), self.default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(dollars(default)),
            (None, None) => {
                let name = self.name;
                let message = format!("the environment has no variable {name}");
                let hint = format!("set it for this process, or write a default: ${{{name}:-default}}");
                Err(fault(message, hint, self.length))
            }
        }
    }
}

/// A default with each `$$` as `$`.
fn dollars(default: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(default.len());
    let mut rest = default;
    while let [first, others @ ..] = rest {
        value.push(*first);
        rest = if rest.starts_with(b"$$") { &rest[2..] } else { others };
    }
    value
}

fn fault(message: String, hint: String, length: usize) -> ExpandFault {
    ExpandFault { message, hint, at: 0..length }
}

impl ExpandFault {
    fn at(self, start: usize) -> ExpandFault {
        ExpandFault { at: start..start + self.at.end, ..self }
    }
}

fn name_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Variable {
        match name {
            "A" => Some(b"one".to_vec()),
            "_b2" => Some(b"${A} $$".to_vec()),
            "EMPTY" => Some(Vec::new()),
            _ => None,
        }
    }

    fn expanded(text: &str) -> Result<String, String> {
        let outcome = expand(text.as_bytes(), &environment).map_err(|fault| {
            assert!(!fault.hint.is_empty());
            format!("{} | {}", fault.message, &text[fault.at])
        })?;
        Ok(outcome.map_or_else(|| text.to_owned(), |it| String::from_utf8(it.bytes).unwrap()))
    }

    #[test]
    fn variables_defaults_and_dollars_are_replaced() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${A}", "one"),
            ("x${A}y${A}", "xoneyone"),
            ("${_b2}", "${A} $$"),
            ("${NONE:-two}", "two"),
            ("${EMPTY:-two}", "two"),
            ("${A:-two}", "one"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b c}", "a:-b c"),
            ("${NONE:-5$$}", "5$"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("$$$", "$$"),
            ("$$$${A}", "$${A}"),
            ("$$${A}", "$one"),
            ("$", "$"),
            ("$A a$ $-", "$A a$ $-"),
            ("ä${A}ö", "äoneö"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
        let names = expand(b"${A}${NONE:-x}", &environment).unwrap().unwrap().names;
        assert_eq!(names, ["A", "NONE"]);
        assert_eq!(expand(b"$ 5", &environment), Ok(None));
    }

    #[test]
    fn fault_names_the_variable_and_its_place() {
        for (text, expected) in [
            ("a ${NONE} b", "the environment has no variable NONE | ${NONE}"),
            ("a ${NONE", "`${` without `}` | ${NONE"),
            ("${}", "`${}` is not a variable | ${}"),
            ("${1A}", "`${1A}` is not a variable | ${1A}"),
            ("x${A:?why}", "`${A:?why}` is not a variable | ${A:?why}"),
            ("${A-b}", "`${A-b}` is not a variable | ${A-b}"),
            ("${A B}", "`${A B}` is not a variable | ${A B}"),
            ("${NONE:-${A}}", "`${NONE:-${A}` is not a variable | ${NONE:-${A}"),
        ] {
            assert_eq!(expanded(text), Err(expected.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_expands_to_itself(text in "[${}A:a-]{0,12}|.*") {
            prop_assert_eq!(escape_bytes(text.as_bytes()), escape(&text).into_bytes());
            prop_assert_eq!(expanded(&escape(&text)), Ok(text));
        }

        /// Pieces side by side do not change each other's meaning.
        #[test]
        fn expansion_is_that_of_its_pieces(
            pieces in prop::collection::vec((0..4_u8, "[a-z ä]{0,4}", ".{0,6}"), 0..6)
        ) {
            let (mut text, mut wanted) = (String::new(), String::new());
            let mut variables = std::collections::HashMap::new();
            for (number, (kind, plain, value)) in pieces.iter().enumerate() {
                match kind {
                    0 => (text += plain, wanted += plain),
                    1 => (text += "$$", wanted += "$"),
                    2 => (text += &format!("${{V{number}:-{plain}}}"), wanted += plain),
                    _ => {
                        variables.insert(format!("V{number}"), value.clone().into_bytes());
                        (text += &format!("${{V{number}}}"), wanted += value)
                    }
                };
            }
            let lookup = |name: &str| variables.get(name).cloned();
            let outcome = expand(text.as_bytes(), &lookup).unwrap();
            let bytes = outcome.map_or(text.into_bytes(), |it| it.bytes);
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), wanted);
        }

        #[test]
        fn any_bytes_are_expanded_or_refused_at_a_place_in_them(text in prop::collection::vec(
            prop_oneof![Just(b'$'), Just(b'{'), Just(b'}'), Just(b':'), Just(b'-'), any::<u8>()], 0..40)) {
            if let Err(fault) = expand(&text, &environment) {
                prop_assert!(fault.at.start < fault.at.end && fault.at.end <= text.len());
            }
        }
    }
}
