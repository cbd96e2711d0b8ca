//! nginx.conf as tokens.

use std::iter::Peekable;
use std::str::Chars;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lexeme {
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
    /// A quote or a block that does not end.
    Cut(&'static str),
}

/// Reads tokens; each comes with the line that it begins at, from 1.
pub(super) struct Lexer<'t> {
    letters: Peekable<Chars<'t>>,
    line: usize,
    lines: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Lexer<'t> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Lexer { lines: text.lines().count().max(1), letters: text.chars().peekable(), line: 1 }
    }

    pub(super) fn next(&mut self) -> Option<(Lexeme, usize)> {
        self.skip_blanks();
        let line = self.line;
        let letter = self.peek()?;
        let token = match letter {
            ';' | '{' | '}' => {
                self.take();
                match letter {
                    ';' => Lexeme::End,
                    '{' => Lexeme::Open,
                    _ => Lexeme::Close,
                }
            }
            '"' | '\'' => self.quoted(),
            _ => Lexeme::Word(self.word()),
        };
        Some((token, line))
    }

    /// Skips the content of a block of another language, up to its closing brace. False if there is none.
    pub(super) fn skip_block(&mut self) -> bool {
        let mut depth = 1_usize;
        while let Some(letter) = self.take() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 1 => return true,
                '}' => depth -= 1,
                _ => {}
            }
        }
        false
    }

    /// The line that has been reached, which exists.
    pub(super) fn line(&self) -> usize {
        self.line.min(self.lines)
    }

    fn take(&mut self) -> Option<char> {
        let letter = self.letters.next()?;
        if letter == '\n' {
            self.line += 1;
        }
        Some(letter)
    }

    fn peek(&mut self) -> Option<char> {
        self.letters.peek().copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(letter) = self.peek() {
            match letter {
                '#' => {
                    while self.peek().is_some_and(|letter| letter != '\n') {
                        self.take();
                    }
                }
                ' ' | '\t' | '\r' | '\n' => drop(self.take()),
                _ => return,
            }
        }
    }

    /// A word without quotes; quotes inside of it are letters.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(letter) = self.peek() {
            match letter {
                ' ' | '\t' | '\r' | '\n' | ';' | '{' => break,
                '\\' => self.escaped(&mut word),
                '$' => {
                    self.take();
                    word.push('$');
                    // ${name} is a variable, not a block.
                    if self.peek() == Some('{') {
                        self.take();
                        word.push('{');
                    }
                }
                _ => {
                    self.take();
                    word.push(letter);
                }
            }
        }
        word
    }

    fn quoted(&mut self) -> Lexeme {
        let quote = self.take();
        let mut word = String::new();
        while let Some(letter) = self.peek() {
            if letter == '\\' {
                self.escaped(&mut word);
                continue;
            }
            self.take();
            if Some(letter) == quote {
                return Lexeme::Word(word);
            }
            word.push(letter);
        }
        Lexeme::Cut("the quote does not end")
    }

    /// A backslash: nginx keeps it in front of letters other than these, for regular expressions.
    fn escaped(&mut self, word: &mut String) {
        self.take();
        match self.take() {
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(letter @ ('"' | '\'' | '\\')) => word.push(letter),
            Some(letter) => word.extend(['\\', letter]),
            None => word.push('\\'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<(Lexeme, usize)> {
        let mut lexer = Lexer::new(text);
        std::iter::from_fn(|| lexer.next()).collect()
    }

    fn words(text: &str) -> Vec<String> {
        let word = |(token, _)| if let Lexeme::Word(word) = token { Some(word) } else { None };
        tokens(text).into_iter().filter_map(word).collect()
    }

    #[test]
    fn words_quotes_escapes_and_comments() {
        for (text, expected) in [
            ("listen 80; # web", &["listen", "80"][..]),
            ("a \"b ; c\" 'd \"e' f#g", &["a", "b ; c", "d \"e", "f#g"]),
            ("set $x ${y}z;", &["set", "$x", "${y}z"]),
            (r#"~^\w+\.x$ "a\"b" 'a\\b' a\ b"#, &[r"~^\w+\.x$", "a\"b", "a\\b", "a\\ b"]),
            ("\u{feff}a \"\"", &["a", ""]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn tokens_have_the_line_they_begin_at() {
        let word = |text: &str| Lexeme::Word(text.to_owned());
        let expected = [(word("a"), 1), (Lexeme::Open, 2), (word("b\nc"), 3), (Lexeme::End, 4), (Lexeme::Close, 4)];
        assert_eq!(tokens("a\n{\n 'b\nc';}"), expected);
        assert_eq!(tokens("a 'b"), [(word("a"), 1), (Lexeme::Cut("the quote does not end"), 1)]);
    }
}
