//! Permission bits of files.

use std::fmt;
use std::str::FromStr;

use crate::config::report::{Diagnostic, shown};

const EXAMPLE: &str =
    "write three octal digits after a zero, in quotes: \"0600\" for the owner, \"0660\" for the group too";

/// Permission bits: `0600`. At most `0777`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileMode(pub(crate) u32);

impl FileMode {
    /// The error of a number: YAML readers do not agree whether 0600 is octal.
    pub(crate) fn number(number: i64) -> Diagnostic {
        let digits = number.to_string();
        let is_octal = digits.len() <= 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        Diagnostic::new(format!("{number} is a number, and a mode is octal digits in quotes")).hint(match is_octal {
            true => format!("write \"{number:04}\""),
            false => EXAMPLE.to_owned(),
        })
    }
}

impl FromStr for FileMode {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<FileMode, Diagnostic> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let is_octal = (3..=6).contains(&digits.len()) && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        match u32::from_str_radix(digits, 8) {
            Ok(mode @ 0..=0o777) if is_octal => Ok(FileMode(mode)),
            Ok(_) if is_octal => Err(Diagnostic::new(format!("`{text}` is out of range"))
                .hint("valid range: \"0000\" to \"0777\"; a socket has no set-user-ID, set-group-ID or sticky bit")),
            _ => Err(Diagnostic::new(format!("`{}` is not a mode", shown(text))).hint(EXAMPLE)),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}
