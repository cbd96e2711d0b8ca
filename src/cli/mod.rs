//! The command line: what it accepts, and one file for each subcommand.

mod check;
mod completions;
mod config_file;
mod demo;
mod exit;
mod explain;
mod man;
mod output;
mod run;
mod schema;
mod signals;
mod stats_port;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (git ",
    env!("TIDEGATE_GIT_HASH"),
    ", TLS provider: ",
    env!("TIDEGATE_TLS"),
    ")"
);

/// Layer-4 load balancer for TCP and TLS.
#[derive(Parser)]
#[command(name = "tidegate", version = VERSION, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the load balancer
    ///
    /// SIGTERM and Ctrl-C start a graceful shutdown: no new connections are accepted, and open ones may finish within
    /// shutdown.drain. A second signal closes them at once.
    Run {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Validate a configuration file and report every error with its line
    ///
    /// Exits with 0 if the configuration is valid, with 2 if it is not. Warnings do not change the exit code.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Run a self-contained demonstration; needs no configuration and no backends
    ///
    /// Starts three small HTTP backends on free local ports, one of them slow and one with twice the weight, balances
    /// them on 127.0.0.1:8080 (another port if that one is in use), and generates a light load. Prints the
    /// configuration in effect, commands to try, and one line of statistics per second.
    ///
    /// Ends on Ctrl-C or after --seconds with a summary per backend: connections, bytes, errors and latency. A second
    /// Ctrl-C does not wait for open connections.
    Demo {
        /// End after N seconds instead of on Ctrl-C
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: Option<u64>,
    },
    /// Show live statistics of a running instance
    ///
    /// Polls the stats port once a second and shows the state, connections, throughput, failures and latency
    /// percentiles of each pool and backend. Press ? for help, q to quit. While the stats port is unreachable, keeps
    /// retrying.
    ///
    /// With --once, prints one table and exits; rates are then averages of the last 10 s.
    Top(top::Top),
    /// Show which backend a client would be connected to, and why
    ///
    /// A dry run against the routes and backend states of a running instance: opens no connection and does not advance
    /// round robin. The answer holds until the next connection arrives.
    Explain(explain::Explain),
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// Shell to generate the script for
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(clap::Args)]
struct ConfigFile {
    /// Configuration file [default: ./tidegate.yaml, then /etc/tidegate/config.yaml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Same as FILE
    #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(self) -> Option<PathBuf> {
        self.file.or(self.config)
    }
}

/// Reads the arguments and runs the subcommand.
pub(crate) fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => run::run(config.path()),
        Command::Check { config } => check::check(config.path()),
        Command::Demo { seconds } => demo::demo(seconds),
        Command::Top(asked) => top::top(asked),
        Command::Explain(asked) => explain::explain(asked),
        Command::Schema => schema::schema(),
        Command::Completions { shell } => completions::completions(shell, &mut Arguments::command()),
        Command::Man => man::man(Arguments::command()),
    }
}
