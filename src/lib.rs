//! tidegate: a Layer-4 load balancer for Linux. This page is the map of its code; `docs/architecture.md` says why it is so.
//!
//! # The life of a connection
//!
//! [`server`] reads like this, top-down, in `server/session.rs`:
//!
//! 1. room in the listener and the process, accept, a worker (`accept.rs`);
//! 2. where the listener says so (`preamble.rs`): PROXY header -> access lists and limits (`admission.rs`) -> STARTTLS -> TLS termination, or
//!    a look at the ClientHello -> the first HTTP request -> route (`route.rs`); a client over a limit is closed, or answered
//!    where its protocol is known (`reject.rs`);
//! 3. lease a backend ([`pool`]) by the pool's algorithm ([`balance`]; weights are fixed when `pool/snapshot.rs` builds a
//!    snapshot), and connect to it, or to another one on failure (`dial.rs`); the PROXY header, STARTTLS and TLS to the backend
//!    (`upstream.rs`);
//! 4. with MySQL's TLS on either side, the login up to its end, since that server speaks before TLS (`login.rs`);
//! 5. peeked bytes first, then all else: [`relay`] copies or splices;
//! 6. termination -> counters, histograms, access line (`record.rs`).
//!
//! A connection that has no limits and whose first bytes need no look goes from 1 to 3. One task, no hops between threads
//! once it has its worker. The lease, the permits and the worker slot are values whose `Drop` gives back, so that every way
//! out of a connection, a panic included, ends in the same state.
//!
//! Both sides of a relay are a [`relay::Stream`]: a worker's socket, or TLS over one ([`tls`]), which the
//! relay does not tell apart but by what they can do.
//!
//! # What is configured, and what lives
//!
//! [`server::Listener`] and [`pool::Backend`] are what is configured, immutable, each with a runtime state that outlives it. A start is
//! the [`app::Plan`] from nothing to the configuration: prepare, which may fail, and commit, which cannot. What lives is addressed by its
//! name or by an id ([`stats::registry`]), never by its place in the configuration.
//!
//! # Changes while it runs
//!
//! A reload, a call of the API and an upgrade are requests ([`control`]) that the loop in `app/control.rs` carries out, one after the
//! other. `app/plan.rs` decides what changes, `app/apply.rs` applies it, and [`pool::Pool::update`] takes it into a pool.
//!
//! - A backend's drain or weight: `cli/change.rs` -> `admin/changes/` -> `control/edit.rs`, then the same way; `pool/snapshot.rs` leaves
//!   drained backends out.
//! - A verdict of health checks: `health/mod.rs` -> `pool/update.rs`.
//! - An upgrade of the program: `app/upgrade.rs`; the old process runs `upgrade/successor.rs`, the new one `upgrade/predecessor.rs`.
//!
//! # Threads
//!
//! *Workers* are the data plane: each is one thread with one event loop ([`worker`]) and its own
//! connections. A connection lives its whole life on one worker: moving its bytes takes no lock and wakes no
//! other thread. What is counted over all workers is taken at its beginning and given back at its end: room
//! within the process's capacity and the listener's limit ([`limits::Capacity`]), and the lease (an atomic). The *control
//! thread* is a tokio runtime: health checks, DNS, timers of the pools, changes. It changes what workers
//! read by replacing a snapshot and by atomics; it asks a worker for something by
//! [`worker::Remote::run`]. The *stats thread*, if there is an admin interface (the stats port), takes what workers have
//! measured and answers requests ([`admin`]), at a lower priority than theirs. Signals, logs and calls that may hang have threads of their own.
//!
//! # Modules, from the bottom up
//!
//! *Pure* is without a clock and without I/O.
//!
//! | module | purpose | may use |
//! |---|---|---|
//! | [`net`] | addresses, sets of networks, listening, inherited and connecting sockets, the one home of `unsafe` | nothing |
//! | [`threads`] | threads whose absence is an error, and those for calls that may hang | nothing |
//! | [`notices`] | file-change notifications (inotify) | threads |
//! | [`mysql`] | MySQL's protocol up to the end of a login: packets, authentication, the login of a client whose TLS ends here; pure | nothing |
//! | [`stats`] | how connections end, counters, histograms | nothing |
//! | [`sniff`] | what a connection's first bytes are: yes, no, or more; HTTP (`http/`) and queries of databases (`queries/`) as they go by; pure | net, stats |
//! | [`http`] | rules of `protocol: http`: requests refused before they are parsed (`gate.rs`) and after (`request.rs`), forwarded fields (`forward.rs`); pure | config::model |
//! | [`udp`] | sessions of `protocol: udp`: which datagram is of which, when one ends, what a flood may take; pure | nothing |
//! | [`config`] | YAML text to a [`config::model`] in which wrong values cannot exist | net |
//! | [`geoip`] | the countries of clients: the database in service, and its replacement when its file changes | config, net, notices, threads |
//! | [`control`] | changes of the running configuration: requests, what was changed at run time, differences | config, net |
//! | [`balance`] | one algorithm a file; pure | config::model |
//! | [`limits`] | access lists (`access.rs`), connection and rate limits per listener, and per address (`addresses.rs`); token bucket (`gcra.rs`), permits; pure | config::model, net |
//! | [`relay`] | moving bytes both ways, a state machine over sockets known by trait | stats |
//! | [`log`] | log and access lines that never block | config::model, net, stats |
//! | [`worker`] | the data plane's thread: loop, sockets, timers, tasks | net, relay, threads |
//! | [`tls`] | certificates, authorities, their replacement; TLS over a worker's socket | config, log, net, notices, relay, worker, threads |
//! | [`pool`] | backends, their live state, the snapshot that picks read, the lease | balance, config::model, log, net, stats |
//! | [`health`] | health checks: one kind of probe a file, clients of databases (`database/`), rise and fall | config::files, config::model, log, mysql, net, pool, sniff, stats, threads, tls |
//! | [`server`] | accept, first bytes, route, session, dial | all of the above but health |
//! | [`admin`] | the admin interface: what is measured, every way to show it (`csv/columns.rs`: HAProxy's columns), calls that change something (`changes/`) | config, control, geoip, limits, log, net, pool, server, sniff, stats, tls, threads |
//! | [`app`] | wires everything, runs, drains | all |
//!
//! The program itself (`main.rs`, `cli/`) uses the library from outside. `tests/it/architecture.rs` reads the `use crate::` lines
//! and holds them against its copy of this table (`MAY_USE`).
//!
//! # Invariants
//!
//! - What one side sent, the other receives: all of it, in order, once. FIN and RST mean on one side what
//!   they meant on the other. Kept in [`relay`], whose property test states it.
//! - An idle connection holds no buffer and no pipe ([`relay`]).
//! - `max_connections` of a backend is never exceeded, also by workers that pick at the same moment
//!   ([`pool::Lease`]).
//! - Limits of clients are never exceeded within a process, and a refused client takes nothing from the others. Rates of at most
//!   229,376 addresses are kept for each listener ([`limits`]).
//! - A backend that is down gets no new connection from that instant ([`pool`]).
//! - Until a connection is relayed, a client has a deadline for what it must send, and a limit to it: `timeouts.sniff`
//!   and each recogniser's limit ([`sniff`]), then `timeouts.handshake` and the size of TLS's messages
//!   ([`tls::TlsStream`]). What all clients have sent until then has one limit ([`limits::PreambleMemory`]).
//! - What a route depends on is known, or the client is refused: bytes that cannot be read take no pool
//!   (`server/preamble/first_bytes.rs`).
//! - What is let through as an exception can be nothing else: a CancelRequest in plain text (`server/cancel.rs`), a
//!   client that may send no PROXY header and says nothing (`server/screened.rs`).
//! - No byte that was read ahead is lost. What is not tidegate's own (a PROXY header, the request for TLS, the
//!   handshake) goes to the backend as it came, before all else (`server/peek.rs`).
//! - No byte that came in plain text is taken for one that came by TLS: what follows a request for TLS before the
//!   answer ends the connection, and of a backend's answer one byte is read (`server/preamble/postgres.rs`, `server/upstream.rs`);
//!   a MySQL server that says more than its greeting before TLS gets no login ([`mysql::login`]).
//! - A certificate that cannot be used is never in service, and what replaces one in service must be valid ([`tls`]).
//!   What cannot be verified, client or backend, gets no byte of the other side's.
//! - Nothing from the network grows the process without a bound: connections by the capacity that the limit
//!   of open files allows (`app/capacity.rs`), a connection's bytes by back-pressure ([`relay`]) and the bounds of
//!   its first ones, answers to health checks by their size and time ([`health`]), log lines by their queue ([`log`]).

pub mod admin;
pub mod app;
pub mod balance;
pub mod config;
pub mod control;
pub mod geoip;
pub mod health;
pub mod http;
pub mod limits;
pub mod log;
pub mod mysql;
pub mod net;
pub mod notices;
pub mod pool;
pub mod relay;
pub mod server;
pub mod sniff;
pub mod stats;
pub mod threads;
pub mod tls;
pub mod udp;
pub mod worker;
