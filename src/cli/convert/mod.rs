//! `tidegate convert`.
//!
//! A translation reads statements into a [`draft`], and accounts for each of them in a [`ledger`]: what is neither translated nor
//! reported would be lost silently.

mod draft;
mod haproxy;
mod ledger;
mod nginx;
mod quantity;
mod render;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ledger::{Ledger, Outcome, Remark};
use tidegate::config::{self, files::Unread};

use super::output::{USAGE, print, say};

/// Largest file that is read, in bytes.
const MAX_INPUT: u64 = 4 * 1024 * 1024;

#[derive(clap::Args)]
pub(crate) struct Convert {
    /// Configuration file of HAProxy or nginx; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose file it is; by default its content says
    #[arg(long, value_enum)]
    from: Option<Dialect>,
    /// File to write instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Dialect {
    Haproxy,
    Nginx,
}

impl Dialect {
    /// Whose a file is. HAProxy's has headings of sections, nginx's has semicolons and braces.
    fn of(text: &str) -> Dialect {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        // A comment may follow.
        let has_end = |line: &str| line.split(" #").next().unwrap_or_default().trim_end().ends_with([';', '{', '}']);
        let is_heading = |line: &str| {
            let first = line.split_whitespace().next().unwrap_or_default();
            ["global", "defaults", "frontend", "backend", "listen"].contains(&first) && !line.contains([';', '{'])
        };
        if lines().any(has_end) && !lines().any(is_heading) { Dialect::Nginx } else { Dialect::Haproxy }
    }
}

/// A translated file.
struct Converted {
    yaml: String,
    ledger: Ledger,
}

/// Translates a file, and reports on stderr what it leaves.
pub(crate) fn convert(asked: &Convert) -> ExitCode {
    let name = asked.file.display().to_string();
    let converted = read(&asked.file).map_err(|error| error.to_string()).and_then(|text| {
        let from = asked.from.unwrap_or_else(|| Dialect::of(&text));
        translate(&text, &name, from)
    });
    let Converted { yaml, ledger } = match converted {
        Ok(converted) => converted,
        Err(why) => {
            say(format_args!("error: {name}: {why}"));
            return ExitCode::from(USAGE);
        }
    };
    // The worst last: it is what stays on the screen.
    let mut left = ledger.remarks(Outcome::Left);
    left.iter().for_each(|remark| report("not translated", remark));
    let diverted = ledger.remarks(Outcome::Diverted);
    diverted.iter().for_each(|remark| report("WARNING, not translated", remark));
    left.extend(diverted);
    // Certificates are those of the host that it is for.
    let rejected = config::parse("the result", &yaml, &Unread).err();
    if let Some(failure) = &rejected {
        say(failure.to_string().trim_end());
    }
    let written = match &asked.output {
        Some(path) => match fs::write(path, &yaml) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(format_args!("error: cannot write {}: {error}", path.display()));
                return ExitCode::from(USAGE);
            }
        },
        None => print(yaml.as_bytes()),
    };
    if left.is_empty() && rejected.is_none() { written } else { ExitCode::FAILURE }
}

fn report(what: &str, Remark { file, first, text, why, .. }: &Remark<'_>) {
    say(format_args!("{file}:{first}: {what}: {text}: {why}"));
}

fn translate(text: &str, name: &str, from: Dialect) -> Result<Converted, String> {
    let mut ledger = Ledger::default();
    let file = ledger.file(name);
    let mut draft = match from {
        Dialect::Haproxy => haproxy::translate(text, file, &mut ledger),
        Dialect::Nginx => {
            let folder = Path::new(name).parent().unwrap_or(Path::new(""));
            nginx::translate(text, file, folder, &mut ledger)
        }
    };
    draft.finish();
    ledger.close();
    if draft.listeners.is_empty() {
        let why = match from {
            Dialect::Haproxy => "no frontend or listen with an address: is it a configuration file of HAProxy?",
            Dialect::Nginx => "no server of stream or http with an address to listen at",
        };
        return Err(why.to_owned());
    }
    let yaml = render::file(&draft, &ledger, name);
    Ok(Converted { yaml, ledger })
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    input.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}
