//! The command line: what it accepts, and one file for each subcommand.

mod change;
mod check;
mod completions;
mod config_file;
mod connections;
mod convert;
mod demo;
mod end_deadline;
mod exit;
mod explain;
mod healthcheck;
mod init;
mod man;
mod output;
mod run;
mod schema;
mod service_manager;
mod signals;
mod stats_address;
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
    /// shutdown.drain. A second signal closes them at once. With shutdown.delay, /readyz says 503 for so long before that; a
    /// signal in that time begins the shutdown itself.
    ///
    /// Under systemd, with Type=notify, it reports its readiness and state, and takes the sockets of socket units.
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
    /// Translate a configuration file of HAProxy or nginx
    ///
    /// Prints tidegate's YAML, with comments where a choice was made, and at its end each line that has no equivalent, which
    /// stderr has as well. Exits with 0 if everything was translated, with 1 if lines are left, and with 2 if the file cannot be
    /// read or has no listener.
    Convert(convert::Convert),
    /// Print a minimal configuration to start from
    ///
    /// Asks nothing. The text has ten to thirty lines, of which the addresses are to be changed. Exits with 1 if the file
    /// of --output exists or cannot be written.
    Init(init::Init),
    /// Run a self-contained demonstration; needs no configuration and no backends
    ///
    /// Starts three small HTTP backends on free local ports, one of them slow and one with twice the weight, balances
    /// them on 127.0.0.1:8080 (another port if that one is in use), generates a light load, and opens the dashboard. Step by
    /// step, it takes a backend away and brings it back, has one reset its connections, drains one and makes it ready, and
    /// reloads a weight. It says what each step means, and prints the commands by which you do the same meanwhile.
    ///
    /// Ends after --seconds or on Ctrl-C with what the clients saw in each step: requests, failures, the longest pause,
    /// answers by backend. A second Ctrl-C does not wait for open connections. Its files, in a directory of TMPDIR or /tmp
    /// that only its user can open, are removed.
    Demo(demo::Demo),
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
    /// Ask a running instance whether it is ready
    ///
    /// For containers without curl, and for scripts. Exits with 0 if /readyz of the admin interface says that every listener
    /// has an available backend and no shutdown has begun, otherwise with 1 and the reason on stderr.
    Healthcheck(healthcheck::Healthcheck),
    /// List the open connections of a running instance, the oldest first
    ///
    /// Shows client, backend, age, the time since a byte last moved, and the bytes from the client (in) and to it (out).
    /// Those of processes that an upgrade has replaced are among them; a column then says which process has each.
    Connections(connections::Connections),
    /// End open connections of a running instance
    ///
    /// Client and backend get a reset, and the access log says that an administrator killed the connection. Takes the id
    /// of one connection, or options that name several. Reaches processes that an upgrade has replaced too.
    Kill(connections::Kill),
    /// Apply the configuration file of a running instance as it now is
    ///
    /// Connections, counters and health are kept. Waits until the change is in effect and prints what has changed. If
    /// the file is wrong or cannot be applied, nothing changes: prints every error and exits with 1.
    ///
    /// The file is the one with which the instance was started. --config only says where its admin interface is.
    Reload(change::Reload),
    /// Show what a reload would change
    ///
    /// With FILE, compares that file with what is in effect. As with every command, --config only says where the
    /// admin interface of the instance is; which file it reads, it knows itself.
    Diff(change::Diff),
    /// Take a backend out of service: no new connections, health checks go on
    Drain(change::Drain),
    /// Put a backend into service again
    Ready(change::OfBackend),
    /// Take a backend out of service without health checks
    Maintenance(change::OfBackend),
    /// End the connections of a backend, also of one that was removed, in all processes
    Cut(change::OfBackend),
    /// Change the weight of a backend
    Weight(change::Weight),
    /// Add a backend to a pool, or change where it listens
    Add(change::Add),
    /// Remove a backend: it drains, and is gone when its last connection has ended
    Remove(change::Remove),
    /// Stop accepting on a listener; new connections wait in the kernel's accept queue
    Pause(change::OfListener),
    /// Accept on a listener again
    Resume(change::OfListener),
    /// Go back to the file: drop what was changed at run time
    ///
    /// Of a backend, of a pool with its backends, of a listener, or all of it. Values of the configuration file are in effect
    /// again, a removed backend comes back, and one that was added is removed. A configuration that was put by the
    /// admin interface stays until the next reload.
    Reset(change::Reset),
    /// Hand over to another binary: nothing is refused, and open connections have shutdown.drain to end
    ///
    /// The new process takes the listening sockets over and gets ready; then the old one drains. If anything fails on
    /// the way, the old one goes on as if nothing had happened.
    Upgrade(change::Upgrade),
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// Shell to generate the script for
        shell: Shell,
    },
    /// Print a manual page: tidegate(1), or tidegate.yaml(5) with every key of the configuration
    Man {
        /// Page to print
        #[arg(value_name = "PAGE", value_enum, default_value_t)]
        page: man::Page,
    },
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
    completions::answer_shell(Arguments::command);
    match Arguments::parse().command {
        Command::Run { config } => run::run(config.path()),
        Command::Check { config } => check::check(config.path()),
        Command::Convert(asked) => convert::convert(&asked),
        Command::Init(asked) => init::init(asked),
        Command::Demo(asked) => demo::demo(&asked),
        Command::Top(asked) => top::top(asked),
        Command::Explain(asked) => explain::explain(asked),
        Command::Healthcheck(asked) => healthcheck::healthcheck(asked),
        Command::Connections(asked) => connections::connections(asked),
        Command::Kill(asked) => connections::kill(asked),
        Command::Reload(asked) => change::reload(asked),
        Command::Diff(asked) => change::diff(asked),
        Command::Drain(asked) => change::drain(asked),
        Command::Ready(asked) => change::ready(asked),
        Command::Maintenance(asked) => change::maintenance(asked),
        Command::Cut(asked) => change::cut(asked),
        Command::Weight(asked) => change::weight(asked),
        Command::Add(asked) => change::add(asked),
        Command::Remove(asked) => change::remove(asked),
        Command::Pause(asked) => change::pause(asked),
        Command::Resume(asked) => change::resume(asked),
        Command::Reset(asked) => change::reset(asked),
        Command::Upgrade(asked) => change::upgrade(asked),
        Command::Schema => schema::schema(),
        Command::Completions { shell } => completions::completions(shell),
        Command::Man { page } => man::man(Arguments::command(), page),
    }
}
