//! Byte strings in double-quoted scalars.
//!
//! YAML's `"\xff"` is the code point U+00FF, which is two bytes in UTF-8. Where bytes are meant, `\xNN` is the byte NN, and
//! every other character, `\u00ff` included, is its UTF-8.

/// The bytes of a double-quoted scalar if they differ from the UTF-8 of `text`. `source` is the scalar as written, since
/// `text` no longer has the escapes.
pub(super) fn of(source: &str, text: &str) -> Option<Box<[u8]>> {
    let written = || source_characters(source).filter(|(character, _)| !character.is_ascii());
    if !written().any(|(_, is_byte)| is_byte) {
        return None;
    }
    // Line folding adds and drops ASCII only: non-ASCII characters are the same on both sides, in the same order.
    let mut written = written();
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        let is_byte = !character.is_ascii() && {
            let (same, is_byte) = written.next()?;
            debug_assert_eq!(same, character, "in {source}");
            is_byte && same == character
        };
        match u8::try_from(character) {
            Ok(byte) if is_byte => bytes.push(byte),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(bytes.into())
}

/// Characters with escapes resolved, and whether each was written as `\xNN`. All escapes of ASCII characters yield a space.
fn source_characters(source: &str) -> impl Iterator<Item = (char, bool)> {
    let mut rest = source.chars();
    std::iter::from_fn(move || {
        let character = rest.next()?;
        if character != '\\' {
            return Some((character, false));
        }
        Some(match rest.next()? {
            'x' => (code_point(&mut rest, 2)?, true),
            'u' => (code_point(&mut rest, 4)?, false),
            'U' => (code_point(&mut rest, 8)?, false),
            'N' => ('\u{85}', false),
            '_' => ('\u{a0}', false),
            'L' => ('\u{2028}', false),
            'P' => ('\u{2029}', false),
            _ => (' ', false),
        })
    })
}

fn code_point(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let value = rest.take(digits).try_fold(0, |value: u32, c| Some((value << 4) | c.to_digit(16)?))?;
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Tree, parse};

    fn bytes(yaml: &str) -> Vec<u8> {
        let (tree, diagnostics, complete) = parse(yaml);
        assert!(complete && diagnostics.is_empty(), "{yaml}");
        scalar(&tree)
    }

    fn scalar(tree: &Tree) -> Vec<u8> {
        tree.bytes(tree.root().unwrap()).unwrap().to_vec()
    }

    #[test]
    fn escape_of_two_digits_is_a_byte_and_all_else_is_utf_8() {
        for (yaml, expected) in [
            (r#""\x00\x00\x00\x08\x04\xd2\x16\x2f""#, &b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..]),
            (r#""\xff""#, b"\xff"),
            (r#""\u00ff""#, "ÿ".as_bytes()),
            (r#""\U000000ff\xFF\U0001F600""#, b"\xc3\xbf\xff\xf0\x9f\x98\x80"),
            ("\"ÿ\\xff€\\xe2\"", b"\xc3\xbf\xff\xe2\x82\xac\xe2"),
            (r#""\\xff\xfe""#, b"\\xff\xfe"),
            (r#""\N\_\L\P\x85\xa0""#, b"\xc2\x85\xc2\xa0\xe2\x80\xa8\xe2\x80\xa9\x85\xa0"),
            (r#""a\"\xff\/\e\t ""#, b"a\"\xff/\x1b\t "),
            ("\"a\\xff\n   b é\\\n   \\xfe\n\n  c\"", b"a\xff b \xc3\xa9\xfe\nc"),
            (r"'\xff'", br"\xff"),
            (r"\xff", br"\xff"),
            ("|-\n  \\xff é", "\\xff é".as_bytes()),
        ] {
            assert_eq!(bytes(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn alias_has_the_same_bytes() {
        let (tree, _, complete) = parse("a: &a \"\\xff\"\nb: *a\n");
        assert!(complete);
        let crate::config::tree::NodeValue::Map(children) = tree.value(tree.root().unwrap()) else {
            panic!("a mapping")
        };
        for child in children {
            assert_eq!(tree.bytes(*child), Some(&b"\xff"[..]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_written(wanted in prop::collection::vec(any::<u8>(), 0..40)) {
            let escapes: String = wanted.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(bytes(&format!("\"{escapes}\"")), wanted);
        }

        /// Characters written as they are, as `\u` and as `\x`, side by side.
        #[test]
        fn each_way_of_writing_keeps_its_meaning(wanted in prop::collection::vec((any::<char>(), 0..3_u8), 0..40)) {
            let (mut yaml, mut expected) = (String::new(), Vec::new());
            for (character, way) in wanted {
                match way {
                    0 if character.is_alphabetic() => yaml.push(character),
                    1 if (character as u32) < 256 => {
                        yaml.push_str(&format!("\\x{:02X}", character as u32));
                        expected.push(character as u8);
                        continue;
                    }
                    _ => yaml.push_str(&format!("\\U{:08x}", character as u32)),
                }
                expected.extend_from_slice(character.to_string().as_bytes());
            }
            prop_assert_eq!(bytes(&format!("\"{yaml}\"")), expected);
        }
    }
}
