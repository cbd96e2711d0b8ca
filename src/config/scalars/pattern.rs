//! Patterns of file names.

use std::fmt;
use std::str::FromStr;

use crate::config::report::{Diagnostic, shown};

/// A file, or files by wildcards in the parts of its path: `conf.d/*.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePattern(String);

impl FilePattern {
    /// As written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePattern {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<FilePattern, Diagnostic> {
        let wrong = || Diagnostic::new(format!("`{}` is not a pattern of file names", shown(text)));
        if text.is_empty() || text.ends_with('/') || text.contains(char::is_control) {
            return Err(wrong().hint("write a file, or several by a wildcard: conf.d/*.yaml"));
        }
        if text.split('/').any(|part| part.contains("**")) {
            return Err(wrong().hint("`**` is not supported: name each level, such as conf.d/*/*.yaml"));
        }
        match text.split('/').all(|part| part_of(part).is_some()) {
            true => Ok(FilePattern(text.to_owned())),
            false => Err(wrong().hint("`[` needs a `]` in the same part of the path, such as [a-z]*.yaml")),
        }
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One part of a path with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GlobPart(Vec<GlobToken>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum GlobToken {
    Letter(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `[a-z_]`, `[!a]`
    OneOf {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A part of a path: a pattern, or `Ok` of a plain name. `None` if a bracket is not closed.
pub(crate) fn part_of(part: &str) -> Option<Result<&str, GlobPart>> {
    if !part.contains(['*', '?', '[']) {
        return Some(Ok(part));
    }
    let (mut tokens, mut rest) = (Vec::new(), part.chars());
    while let Some(letter) = rest.next() {
        tokens.push(match letter {
            '*' => GlobToken::Many,
            '?' => GlobToken::Any,
            '[' => {
                let inside = rest.as_str();
                let (negated, inside) = inside.strip_prefix('!').map_or((false, inside), |inside| (true, inside));
                // A bracket that comes first is one of the letters.
                let first = inside.chars().next()?.len_utf8();
                let end = first + inside[first..].find(']')?;
                rest = inside[end + 1..].chars();
                GlobToken::OneOf { negated, ranges: ranges(&inside[..end]) }
            }
            letter => GlobToken::Letter(letter),
        });
    }
    Some(Err(GlobPart(tokens)))
}

fn ranges(inside: &str) -> Vec<(char, char)> {
    let letters: Vec<char> = inside.chars().collect();
    let (mut ranges, mut rest) = (Vec::new(), letters.as_slice());
    while let [first, others @ ..] = rest {
        match others {
            ['-', last, others @ ..] => {
                ranges.push((*first, *last));
                rest = others;
            }
            _ => {
                ranges.push((*first, *first));
                rest = others;
            }
        }
    }
    ranges
}

impl GlobPart {
    /// Whether a name fits. A dot at its beginning fits nothing but a dot.
    pub(crate) fn fits(&self, name: &str) -> bool {
        if name.starts_with('.') && self.0.first() != Some(&GlobToken::Letter('.')) {
            return false;
        }
        let name: Vec<char> = name.chars().collect();
        let (mut token, mut letter) = (0, 0);
        // Where the last `*` was, and up to where it has taken letters: the only choice that is ever revised.
        let mut many: Option<(usize, usize)> = None;
        while letter < name.len() {
            match self.0.get(token) {
                Some(GlobToken::Many) => {
                    many = Some((token, letter));
                    token += 1;
                }
                Some(one) if one.takes(name[letter]) => (token, letter) = (token + 1, letter + 1),
                _ => {
                    let Some((star, taken)) = many else { return false };
                    many = Some((star, taken + 1));
                    (token, letter) = (star + 1, taken + 1);
                }
            }
        }
        self.0[token..].iter().all(|rest| *rest == GlobToken::Many)
    }
}

impl GlobToken {
    fn takes(&self, letter: char) -> bool {
        match self {
            GlobToken::Letter(own) => *own == letter,
            GlobToken::Any | GlobToken::Many => true,
            GlobToken::OneOf { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        match part_of(pattern).unwrap() {
            Ok(plain) => plain == name,
            Err(pattern) => pattern.fits(name),
        }
    }

    #[test]
    fn wildcards_stand_for_letters() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".yaml", false),
            ("*.yaml", "a.yaml~", false),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("?.yaml", "ä.yaml", true),
            ("?.yaml", "ab.yaml", false),
            ("[0-9]?-*.y*ml", "10-db.yml", true),
            ("[0-9]?-*.y*ml", "a0-db.yml", false),
            ("[!0-9]*", "a1", true),
            ("[!0-9]*", "1a", false),
            ("[]a]x", "]x", true),
            ("[a-]", "-", true),
            ("a*b*c", "abbbcbc", true),
            ("a*b*c", "abbbcb", false),
            ("plain", "plain", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        assert!(part_of("[a").is_none() && part_of("[").is_none() && part_of("[]").is_none());
    }

    #[test]
    fn pattern_that_cannot_be_is_refused() {
        for wrong in ["", "conf.d/", "a\nb", "**/a.yaml", "conf.d/[a"] {
            let fault = wrong.parse::<FilePattern>().unwrap_err();
            assert!(fault.message.ends_with("is not a pattern of file names") && fault.hint.is_some(), "{wrong}");
        }
        for good in ["conf.d/*.yaml", "/etc/x.yaml", "../[a-z]/?.yaml"] {
            assert_eq!(good.parse::<FilePattern>().unwrap().to_string(), good);
        }
    }

    /// The definition, which is exponential.
    fn model(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => model(rest, name) || !name.is_empty() && model(pattern, &name[1..]),
            (['?', rest @ ..], [_, others @ ..]) => model(rest, others),
            ([one, rest @ ..], [first, others @ ..]) => one == first && model(rest, others),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn match_is_that_of_the_definition(pattern in "[ab*?]{0,7}", name in "[ab]{0,8}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(fits(&pattern, &name), model(&letters(&pattern), &letters(&name)));
        }

        #[test]
        fn any_pattern_is_taken_or_refused(pattern in ".*", name in ".*") {
            if let Some(Err(pattern)) = part_of(&pattern) {
                pattern.fits(&name);
            }
        }
    }
}
