//! tidegate(1): clap's part, and what clap does not know.

use std::io;

use clap_mangen::Man;
use tidegate::config::DEFAULT_PATHS;

use super::roff::Roff;
use crate::cli::signals;

/// What precedes each piece that clap_mangen renders by itself; once is enough.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

const EXIT_STATUS: [(&str, &str); 3] = [
    (
        "0",
        "Success. Of run: the end was asked for, also when the drain deadline or a second signal closed connections. Of check: the file is \
         valid. Of healthcheck: the instance is ready.",
    ),
    (
        "1",
        "Any other failure, such as an address in use, an instance that cannot be reached, or a change that was refused.",
    ),
    ("2", "Wrong arguments, or a wrong configuration. A service manager need not try again."),
];

const ENVIRONMENT: [(&str, &str); 12] = [
    (
        "LB_CONFIG",
        "The configuration file where no argument names one: of run and check, and of every command that asks a running instance.",
    ),
    (
        "LB_ALGORITHM",
        "balance of all pools that do not name one: round_robin, least_connections, ip_hash, power_of_two, least_latency or random.",
    ),
    ("LB_DEBUG", "1: log.level is at least debug. RUST_LOG overrides it."),
    (
        "others",
        "${NAME} and ${NAME:-default} in a value of the configuration, when it is read and at every reload; $$ is a dollar.",
    ),
    ("RUST_LOG", "Level of the log; overrides log.level. warn, or by module: tidegate::health=debug,info."),
    ("NO_COLOR", "Not empty: no colours in errors of the configuration."),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "Authorities that ca: system means, instead of those of the operating system."),
    (
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "Sockets of a systemd socket unit, taken for the addresses in bind that they have.",
    ),
    (
        "JOURNAL_STREAM",
        "Set by systemd where stderr goes to the journal: lines of text then begin with their priority.",
    ),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID", "Where systemd learns of readiness and status, and its watchdog."),
    ("TMPDIR", "Where demo makes its directory, instead of /tmp."),
    ("COMPLETE", "Set by the script of tidegate completions, which asks the program for words."),
];

const EXAMPLES: [(&str, &str); 7] = [
    (
        "Check a configuration, then run it:",
        "tidegate check --config postgres.yaml\ntidegate run --config postgres.yaml",
    ),
    (
        "Apply the changed file to the running instance, after a look at what would change:",
        "tidegate diff\ntidegate reload",
    ),
    (
        "Take a backend out of service, wait for its connections, and put it back:",
        "tidegate drain db/db-2 --wait 5m\ntidegate ready db/db-2",
    ),
    ("Go back to the file, where a backend was changed at run time:", "tidegate reset db/db-2"),
    ("Ask which backend a client would get, and why:", "tidegate explain --client 10.0.0.7"),
    ("End all connections to a backend that are older than an hour:", "tidegate kill --backend db-1 --older 1h"),
    (
        "Install the manual pages:",
        "tidegate man >/usr/local/share/man/man1/tidegate.1\ntidegate man tidegate.yaml >/usr/local/share/man/man5/tidegate.yaml.5",
    ),
];

/// The page.
pub(super) fn page(command: clap::Command) -> io::Result<String> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let name = format!("tidegate {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(name).manual("tidegate");
    let mut head = Vec::new();
    man.render_title(&mut head)?;
    man.render_name_section(&mut head)?;
    man.render_synopsis_section(&mut head)?;
    man.render_options_section(&mut head)?;
    let mut page = Roff(format!("{PREAMBLE}{}", text(head)?));
    page.section("COMMANDS");
    for subcommand in command.get_subcommands() {
        page.0.push_str(&subsection(subcommand)?);
    }
    page.section("EXIT STATUS");
    EXIT_STATUS.iter().for_each(|(status, meaning)| page.item(status, meaning));
    page.section("SIGNALS");
    page.paragraph("Of tidegate run; each leaves a line in the log. Every other signal that would end a process is ignored with a warning.");
    signals::meanings().for_each(|(signal, meaning)| page.item(signal, meaning));
    page.section("ENVIRONMENT");
    ENVIRONMENT.iter().for_each(|(variable, meaning)| page.item(variable, meaning));
    page.section("FILES");
    for path in DEFAULT_PATHS {
        page.item(path, "The configuration, where neither an argument nor LB_CONFIG names one: the first that exists. Read by run and check, and by every command that asks a running instance where its admin interface is.");
    }
    for (key, what) in [
        ("admin.token_file", "The bearer token for changes over TCP."),
        ("admin.state_file", "Changes made at run time, which outlive a restart."),
        ("log.access", "The access log, unless it goes to stderr or to a syslog server, such as the one at /dev/log."),
    ] {
        page.item(&format!("the file in {key}"), what);
    }
    page.section("EXAMPLES");
    for (what, commands) in EXAMPLES {
        page.paragraph(what);
        page.example(commands);
    }
    page.section("SEE ALSO");
    page.0.push_str("\\fBtidegate.yaml\\fR(5)\n");
    Ok(page.0)
}

/// A subcommand's sections as one subsection.
fn subsection(command: &clap::Command) -> io::Result<String> {
    let mut section = Vec::new();
    let man = Man::new(command.clone());
    man.render_synopsis_section(&mut section)?;
    man.render_description_section(&mut section)?;
    man.render_options_section(&mut section)?;
    let heading = format!(".SS {}\n.PP", command.get_name());
    Ok(text(section)?.replacen(".SH SYNOPSIS", &heading, 1).replacen(".SH DESCRIPTION", ".PP", 1).replacen(
        ".SH OPTIONS\n",
        "",
        1,
    ))
}

fn text(page: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(page).map_err(io::Error::other)?;
    Ok(text.replace(PREAMBLE, ""))
}
