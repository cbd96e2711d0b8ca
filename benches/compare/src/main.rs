//! The side-by-side comparison with other balancers. `README.md` beside says how to run and read it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose results are what it prints")]

mod certificate;
mod chart;
mod child;
mod goals;
mod http;
mod limit;
mod load;
mod peers;
mod report;
mod result;
mod rounds;
mod scenario;
mod scrape;
mod sock;
mod summary;
#[cfg(test)]
mod tests;
mod udp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Compares what balancers cost, side by side on this machine.
#[derive(Parser, Debug)]
#[command(name = "compare")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Runs everything and reports it.
    Run(rounds::Args),
    /// Reports once more what was measured last.
    Report(report::Args),
    /// Plays clients and backends for one scenario and prints what it saw as JSON.
    Load(load::Args),
    /// The yardstick: relays and does nothing else.
    Limit(limit::Args),
    #[command(hide = true)]
    Exec(child::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Run(args) => rounds::run(&args).map(|report| print!("{report}")),
        Task::Report(args) => report::again(&args).map(|report| print!("{report}")),
        Task::Load(args) => load::run(&args)
            .and_then(|outcome| serde_json::to_string(&outcome).map_err(|error| error.to_string()))
            .map(|json| println!("{json}")),
        Task::Limit(args) => limit::run(&args).map_err(|error| error.to_string()),
        Task::Exec(args) => child::exec(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
