//! Lines of haproxy.cfg as words.

use std::collections::HashMap;

/// The variables that the file sets itself.
pub(super) type Variables = HashMap<String, String>;

/// Splits a line into words: quotes, backslashes, comments. `Err` says what is wrong with the line.
pub(super) fn words(line: &str, variables: &Variables) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' => words.extend(word.take()),
            '#' => break,
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(letter) => word.push(letter),
                        None => return Err("the quote does not end on this line".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => word.push(escaped(&mut letters)?),
                        Some('$') => word.push_str(&variable(&mut letters, variables)?),
                        Some(letter) => word.push(letter),
                        None => return Err("the quote does not end on this line".to_owned()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(escaped(&mut letters)?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

type Letters<'l> = std::iter::Peekable<std::str::Chars<'l>>;

/// What follows a backslash. `\xNN` is the character of that number, which stands for one byte.
fn escaped(letters: &mut Letters<'_>) -> Result<char, String> {
    let lost = || "the backslash has nothing behind it".to_owned();
    Ok(match letters.next().ok_or_else(lost)? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'x' => {
            let digits: String = letters.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is not a byte"))?;
            char::from(byte)
        }
        letter => letter,
    })
}

/// `${NAME}` or `$NAME` behind its dollar: its value in the file, or in the environment of this process.
fn variable(letters: &mut Letters<'_>, variables: &Variables) -> Result<String, String> {
    let braces = letters.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(letter) = letters.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
        name.push(letter);
    }
    let mut default = None;
    if braces {
        let rest: String = std::iter::from_fn(|| letters.next_if(|letter| *letter != '}')).collect();
        if letters.next().is_none() {
            return Err(format!("the variable {name} has no closing brace"));
        }
        default = rest.strip_prefix('-').map(str::to_owned);
    }
    let unset = || format!("the environment of this command has no {name}: set it, and convert again");
    variables.get(&name).cloned().or_else(|| std::env::var(&name).ok()).or(default).ok_or_else(unset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_escapes() {
        for (line, expected) in [
            ("  bind *:80   # web", &["bind", "*:80"][..]),
            (r"tcp-check send PING\r\n", &["tcp-check", "send", "PING\r\n"]),
            (r#"a "b c" 'd "e' f\ g \#h"#, &["a", "b c", "d \"e", "f g", "#h"]),
            (r#"a "${TIDEGATE_NOT_SET-x}y" ''"#, &["a", "xy", ""]),
            (r"\x41\xff", &["A\u{ff}"]),
            ("", &[]),
        ] {
            assert_eq!(words(line, &Variables::new()).unwrap(), expected, "{line}");
        }
        for line in ["a \"b", "a 'b", "a\\", "\\xzz", "\"${X\"", "\"${TIDEGATE_NOT_SET}\""] {
            assert!(words(line, &Variables::new()).is_err(), "{line}");
        }
    }
}
