//! `tidegate init`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use super::output::{print, say};

#[derive(clap::Args)]
pub(crate) struct Init {
    /// What to write a configuration for
    #[arg(long = "for", value_name = "PURPOSE", default_value = "web")]
    purpose: StarterKind,
    /// File to write instead of stdout; one that exists is kept
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum StarterKind {
    /// PostgreSQL with a standby
    Postgres,
    /// MariaDB or MySQL with a replica
    Mysql,
    /// The primary of Redis or Valkey
    Redis,
    /// Web servers with an HTTP health check
    Web,
    /// Game servers, sticky by the client's address
    Game,
    /// TLS termination
    Tls,
}

/// Writes a minimal configuration.
pub(crate) fn init(asked: Init) -> ExitCode {
    let text = match asked.purpose {
        StarterKind::Postgres => include_str!("postgres.yaml"),
        StarterKind::Mysql => include_str!("mysql.yaml"),
        StarterKind::Redis => include_str!("redis.yaml"),
        StarterKind::Web => include_str!("web.yaml"),
        StarterKind::Game => include_str!("game.yaml"),
        StarterKind::Tls => include_str!("tls.yaml"),
    };
    let Some(path) = asked.output else { return print(text.as_bytes()) };
    let name = path.display();
    match write(&path, text, asked.force) {
        Ok(()) => {
            say(format_args!("{name}: written. Change its addresses, then: tidegate check {name}"));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            say(format_args!("error: {name} exists\n  = help: --force overwrites it"));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(format_args!("error: cannot write {name}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Whether it exists is not asked before: another process may write it in between.
    let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
    options.write(true).open(path)?.write_all(text.as_bytes())
}
