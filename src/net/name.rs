//! Server names (SNI) and the patterns that match them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A name, or `*.` and a name, where the star stands for one label (RFC 6125, 6.4.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name: lower case, no dot at its end.
    Exact(Arc<str>),
    /// What follows `*.`: lower case, no dot at its end.
    Wildcard(Arc<str>),
}

impl NamePattern {
    /// Parses a pattern, without regard to case and a final dot. `None` for empty labels, a star that is not the whole first
    /// label, characters that no host name has, and more than 253 characters.
    pub fn parse(text: &str) -> Option<NamePattern> {
        let name = normal(text);
        let (name, wildcard) = match name.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (&*name, false),
        };
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return None;
        }
        Some(if wildcard { NamePattern::Wildcard(name.into()) } else { NamePattern::Exact(name.into()) })
    }

    /// Whether a [`normal`] name matches.
    pub fn fits(&self, name: &str) -> bool {
        match self {
            NamePattern::Exact(exact) => **exact == *name,
            NamePattern::Wildcard(parent) => name.split_once('.').is_some_and(|(_, rest)| **parent == *rest),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamePattern::Exact(name) => f.write_str(name),
            NamePattern::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// A name in lower case and without a final dot, for comparison.
pub fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().fits(&normal(name))
    }

    #[test]
    fn case_and_a_final_dot_do_not_matter() {
        for name in ["db.example.com", "DB.Example.COM", "db.example.com.", "dB.EXAMPLE.com."] {
            assert!(
                fits("db.example.com", name) && fits("DB.EXAMPLE.COM.", name) && fits("*.Example.com", name),
                "{name}"
            );
        }
    }

    #[test]
    fn a_star_is_one_label() {
        assert!(fits("*.example.com", "a.example.com"));
        for name in ["example.com", "a.b.example.com", "a.example.org", "com"] {
            assert!(!fits("*.example.com", name), "{name}");
        }
        assert!(!fits("example.com", "a.example.com"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = format!("{}.com", "a".repeat(64));
        for text in ["", ".", "*", "*.", "a*.com", "a.*.com", "**.com", "a..b", ".a", "a b", "ä.com", &long] {
            assert_eq!(NamePattern::parse(text), None, "{text}");
        }
        assert_eq!(NamePattern::parse("*.a-1_b.com").unwrap().to_string(), "*.a-1_b.com");
    }
}
