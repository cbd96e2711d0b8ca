//! The few requests of man(7) that the pages use.

/// Text in which nothing is a request.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        for letter in line.chars() {
            match letter {
                '\\' => out.push_str("\\e"),
                '-' => out.push_str("\\-"),
                '\'' => out.push_str("\\(aq"),
                '`' => out.push_str("\\(ga"),
                '^' => out.push_str("\\(ha"),
                '~' => out.push_str("\\(ti"),
                '±' => out.push_str("\\(+-"),
                letter => out.push(letter),
            }
        }
    }
    out
}

/// A page being written.
#[derive(Default)]
pub(super) struct Roff(pub(super) String);

impl Roff {
    pub(super) fn section(&mut self, name: &str) {
        self.0.push_str(&format!(".SH {}\n", escaped(name)));
    }

    pub(super) fn subsection(&mut self, name: &str) {
        self.0.push_str(&format!(".SS {}\n", escaped(name)));
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.0.push_str(&format!(".PP\n{}\n", escaped(text)));
    }

    /// A term in bold, and what it means.
    pub(super) fn item(&mut self, term: &str, text: &str) {
        self.0.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escaped(term), escaped(text)));
    }

    /// Lines as they are.
    pub(super) fn example(&mut self, lines: &str) {
        self.0.push_str(&format!(".PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", escaped(lines.trim_end())));
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn requests_and_escapes_are_text() {
        assert_eq!(escaped(".a\n'b\nc\\d -e"), "\\&.a\n\\&\\(aqb\nc\\ed \\-e");
    }
}
