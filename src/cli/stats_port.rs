//! Where the stats port of a running tidegate is, and asking it: what `top` and `explain` stand on.

use std::fmt::{self, Display};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tidegate::config::files::{MAX_TOKEN_FILE, Unread, parse_token};
use tidegate::config::{self, Style};
use tidegate::net::addr::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::output::{USAGE, say};

/// Where it is when nothing says otherwise: what the examples have.
const USUAL: &str = "127.0.0.1:9900";
/// Time limit of a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer: everything of some ten thousand backends.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Which tidegate is asked.
#[derive(clap::Args)]
pub(super) struct Which {
    /// Stats port as IP:PORT, NAME:PORT or unix:PATH [default: admin.bind of the configuration, or 127.0.0.1:9900
    /// without one]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    stats: Option<String>,
    /// File with the token of the stats port [default: admin.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Configuration file to read the stats port from [default: ./tidegate.yaml, then /etc/tidegate/config.yaml]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A stats port.
#[derive(Debug)]
pub(super) struct StatsPort {
    place: StatsAddress,
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StatsAddress {
    /// Address or name, and port.
    Tcp(String),
    Unix(PathBuf),
}

impl Which {
    /// Finds the stats port. What is wrong is said on stderr, and the error is the exit code.
    pub(super) fn find(self) -> Result<StatsPort, ExitCode> {
        let mut token_file = self.token_file;
        let place = match &self.stats {
            Some(address) => StatsAddress::parse(address),
            None => match self.config.or_else(config::find) {
                None => StatsAddress::parse(USUAL),
                Some(path) => configured(&path).map(|(place, configured)| {
                    token_file = token_file.take().or(configured);
                    place
                })?,
            },
        };
        let token = token_file.as_deref().map(read_token).transpose();
        match (place, token) {
            (Ok(place), Ok(token)) => Ok(StatsPort { place, token }),
            (Err(error), _) | (_, Err(error)) => {
                say(format_args!("error: {error}"));
                Err(ExitCode::from(USAGE))
            }
        }
    }
}

/// The stats port of a configuration, and its token's file. Certificates and keys are not looked at: whoever asks need
/// not be allowed to read them.
fn configured(path: &Path) -> Result<(Result<StatsAddress, String>, Option<PathBuf>), ExitCode> {
    let loaded = config::load(path, &Unread).map_err(|failure| {
        say(failure.render(Style::of_stderr()).trim_end());
        ExitCode::from(USAGE)
    })?;
    let path = path.display();
    let Some(admin) = loaded.config.admin else {
        let error = format!(
            "{path} has no stats port\n  = help: add `admin: {{ bind: {USUAL} }}` to it and restart tidegate, or name \
             another tidegate's stats port: --stats ADDRESS"
        );
        return Ok((Err(error), None));
    };
    let place = match &admin.bind {
        Address::Tcp(address) if address.port() == 0 => {
            Err(format!("{path} has port 0 for its stats port: the log of tidegate says which it is: --stats ADDRESS"))
        }
        Address::Tcp(address) => Ok(StatsAddress::Tcp(reachable(*address).to_string())),
        Address::Unix(path) => Ok(StatsAddress::Unix(path.to_path_buf())),
    };
    Ok((place, admin.token_file.map(|path| path.reveal().clone())))
}

/// Where one connects to that listens on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

fn read_token(path: &Path) -> Result<String, String> {
    let name = path.display();
    let told = |error: &dyn Display| format!("cannot read the token in {name}: {error}");
    match fs::metadata(path) {
        Ok(file) if file.len() > MAX_TOKEN_FILE => return Err(told(&"it is larger than 64 KiB")),
        Ok(_) => {}
        Err(error) => return Err(told(&error)),
    }
    // Any file, also a pipe: `--token-file <(pass show tidegate)`.
    let text = fs::read_to_string(path).map_err(|error| told(&error))?;
    parse_token(&text).map(str::to_owned).map_err(|reason| told(&format_args!("it {reason}")))
}

impl StatsAddress {
    fn parse(text: &str) -> Result<StatsAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(StatsAddress::Unix(PathBuf::from(path)));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let wrong = || format!("`{text}` is no address: write IP:PORT, NAME:PORT or unix:PATH, such as {USUAL}");
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        match port.parse::<u16>() {
            Ok(1..) if !host.is_empty() && host.bytes().all(is_host) => Ok(StatsAddress::Tcp(rest.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl Display for StatsPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            StatsAddress::Tcp(address) => f.write_str(address),
            StatsAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl StatsPort {
    /// Asks for a path, and reads the JSON that comes.
    ///
    /// # Errors
    /// What went wrong, and what to do.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let (status, body) = match timeout(ANSWER_TIMEOUT, self.get(path)).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(format!("the stats port at {self} does not answer within {} s", ANSWER_TIMEOUT.as_secs()));
            }
        };
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|error| format!("what answers at {self} is no tidegate of this version: {error}")),
            StatusCode::UNAUTHORIZED => Err(format!("the stats port at {self} wants another token: --token-file FILE")),
            _ => {
                // It says why, in JSON or in a line.
                let told = serde_json::from_slice::<serde_json::Value>(&body).ok();
                let told = told.as_ref().and_then(|told| told["error"].as_str()).map(str::to_owned);
                let told = told.unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
                Err(told.chars().filter(|letter| !letter.is_control()).take(500).collect())
            }
        }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        let refused = |error: std::io::Error| {
            format!(
                "the stats port at {self} cannot be reached: {error}\n  = help: does tidegate run there, with `admin.bind`?"
            )
        };
        match &self.place {
            StatsAddress::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await.map_err(refused)?;
                self.exchange(stream, address, path).await
            }
            StatsAddress::Unix(file) => {
                let stream = UnixStream::connect(file).await.map_err(refused)?;
                self.exchange(stream, "localhost", path).await
            }
        }
    }

    async fn exchange<S>(&self, stream: S, host: &str, path: &str) -> Result<(StatusCode, Bytes), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let told = |error: &dyn Display| format!("the stats port at {self} does not answer in HTTP: {error}");
        let mut request = Request::get(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| told(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| told(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| told(&error))?.to_bytes()))
        };
        // It moves the bytes of the answer; what ends it shows there.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        let mut connected = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = &mut connection, if connected => connected = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |text: &str| Ok(StatsAddress::Tcp(text.to_owned()));
        assert_eq!(StatsAddress::parse("127.0.0.1:9900"), tcp("127.0.0.1:9900"));
        assert_eq!(StatsAddress::parse("http://localhost:9900/"), tcp("localhost:9900"));
        assert_eq!(StatsAddress::parse("[::1]:9900"), tcp("[::1]:9900"));
        assert_eq!(StatsAddress::parse("unix:/run/t.sock"), Ok(StatsAddress::Unix("/run/t.sock".into())));
        for wrong in ["", "9900", ":9900", "host", "host:", "host:0", "host:99999", "a b:1", "https://host:1/x"] {
            assert!(StatsAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_connects_to_this_host_where_all_addresses_are_bound() {
        let cases = [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")];
        for (bound, reached) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
