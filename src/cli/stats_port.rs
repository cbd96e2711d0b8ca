//! Where the stats port of a running tidegate is, and asking it: what `top`, `explain`, `connections` and `kill` stand on.

use std::fmt::{self, Display, Write};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate::config::files::{MAX_SECRET_FILE, Unread, parse_secret};
use tidegate::config::model::CertificateFiles;
use tidegate::config::{self, Style};
use tidegate::tls::{ClientTrust, CommandTls, CommandTlsFailure, TlsCure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::output::{USAGE, say};
use super::stats_address::{PlainStream, StatsAddress, USUAL, nearest_first};

/// Time limit of a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer: everything of some ten thousand backends.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Which tidegate is asked.
#[derive(clap::Args, Default)]
pub(super) struct Which {
    /// Admin interface as http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:PATH [default: admin.bind of the
    /// configuration, or 127.0.0.1:9900 without one]
    #[arg(long, alias = "stats", value_name = "ADDRESS", conflicts_with = "config")]
    admin: Option<String>,
    /// File with the token of the stats port [default: admin.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Configuration file to read the stats port from [default: ./tidegate.yaml, then /etc/tidegate/config.yaml]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// With https: PEM file of the CAs to trust [default: the system's, and the certificates in admin.tls]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With https: PEM file of the client certificate, for admin.tls.client_auth
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// With https: PEM file of the private key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// A stats port.
#[derive(Debug)]
pub(super) struct StatsPort {
    /// At least one; the nearest first. Where one cannot be reached, the next is asked.
    places: Vec<StatsAddress>,
    token: Option<String>,
    tls: Option<CommandTls>,
    /// The file whose `admin.bind` says where it is.
    found_in: Option<PathBuf>,
}

/// Where it is, the file of its token, and whom to trust.
struct AdminLocation {
    places: Result<Vec<StatsAddress>, String>,
    token_file: Option<PathBuf>,
    trust: ClientTrust,
    /// The file that says so.
    found_in: Option<PathBuf>,
}

/// Why a call has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedCall {
    /// In a sentence.
    pub(super) message: String,
    /// All errors of a configuration, as `check` prints them.
    pub(super) report: Option<String>,
}

impl From<String> for FailedCall {
    fn from(message: String) -> FailedCall {
        FailedCall { message, report: None }
    }
}

/// Text of another process, without control characters but ends of lines.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || *letter == '\n').take(100_000).collect()
}

impl Which {
    /// The configuration file that was named.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Finds the stats port. What is wrong is said on stderr, and the error is the exit code.
    pub(super) fn find(self) -> Result<StatsPort, ExitCode> {
        let AdminLocation { places, token_file, trust, found_in } = self.locate()?;
        let token = token_file.as_deref().map(read_token).transpose();
        let found = places.and_then(|places| StatsPort::new(places, token?, &trust));
        found.map(|port| StatsPort { found_in, ..port }).map_err(|error| said(&error))
    }

    /// As [`Which::find`], without a token if it cannot be read: readiness needs none.
    pub(super) fn find_for_probe(self) -> Result<StatsPort, ExitCode> {
        let AdminLocation { places, token_file, trust, found_in } = self.locate()?;
        let token = token_file.as_deref().and_then(|path| read_token(path).ok());
        let found = places.and_then(|places| StatsPort::new(places, token, &trust));
        found.map(|port| StatsPort { found_in, ..port }).map_err(|error| said(&error))
    }

    fn locate(self) -> Result<AdminLocation, ExitCode> {
        let certificate = self.cert.zip(self.key).map(|(cert, key)| CertificateFiles { cert, key: key.into() });
        let given = ClientTrust { ca: self.ca, pins: Vec::new(), certificate };
        let one = |address: &str| StatsAddress::parse(address).map(|address| vec![address]);
        let of_address = |address: &str, token_file, trust| {
            Ok(AdminLocation { places: one(address), token_file, trust, found_in: None })
        };
        let path = match &self.admin {
            Some(address) => return of_address(address, self.token_file, given),
            None => self.config.or_else(config::find),
        };
        let Some(path) = path else {
            return of_address(USUAL, self.token_file, given);
        };
        let found = configured(&path)?;
        let trust = ClientTrust { pins: found.trust.pins, ..given };
        Ok(AdminLocation { token_file: self.token_file.or(found.token_file), trust, ..found })
    }
}

fn said(error: &str) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::from(USAGE)
}

/// The stats port of a configuration, and its token's file. Certificates and keys are not looked at: whoever asks need
/// not be allowed to read them.
fn configured(file: &Path) -> Result<AdminLocation, ExitCode> {
    let admin = match config::load(file, &Unread) {
        Ok(loaded) => loaded.config.admin,
        // A file that somebody is in the midst of changing must not keep others from a drain.
        Err(failure) => match config::admin_section(file) {
            Some(admin) => Some(admin),
            None => {
                say(failure.render(Style::of_stderr()).trim_end());
                return Err(ExitCode::from(USAGE));
            }
        },
    };
    let path = file.display();
    let Some(admin) = admin else {
        let error = format!(
            "{path} has no stats port\n  = help: add `admin: {{ bind: [{USUAL}, \"unix:/tmp/tidegate.sock\"] }}` to it and reload by SIGHUP \
             (changes need a unix socket, or a token), or name another tidegate's stats port: --admin ADDRESS"
        );
        let trust = ClientTrust::default();
        return Ok(AdminLocation { places: Err(error), token_file: None, trust, found_in: None });
    };
    let places = nearest_first(&admin.bind, admin.tls.is_some());
    let places = if places.is_empty() {
        Err(format!("{path} has port 0 for its stats port: the log of tidegate says which it is: --admin ADDRESS"))
    } else {
        Ok(places)
    };
    let pins = admin.tls.iter().flat_map(|tls| &tls.certificates).map(|files| files.cert.clone()).collect();
    let token_file = admin.token_file.map(|path| path.reveal().clone());
    let trust = ClientTrust { pins, ..ClientTrust::default() };
    Ok(AdminLocation { places, token_file, trust, found_in: Some(file.to_owned()) })
}

fn read_token(path: &Path) -> Result<String, String> {
    let name = path.display();
    let told = |error: &dyn Display| format!("cannot read the token in {name}: {error}");
    match fs::metadata(path) {
        Ok(file) if file.len() > MAX_SECRET_FILE => return Err(told(&"it is larger than 64 KiB")),
        Ok(_) => {}
        Err(error) => return Err(told(&error)),
    }
    // Any file, also a pipe: `--token-file <(pass show tidegate)`.
    let text = fs::read_to_string(path).map_err(|error| told(&error))?;
    parse_secret(&text).map(str::to_owned).map_err(|reason| told(&format_args!("it {reason}")))
}

impl Display for StatsPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At least one.
        self.places.first().map_or(Ok(()), |place| place.fmt(f))
    }
}

impl StatsPort {
    /// On a unix socket, which asks for no token.
    pub(super) fn of_socket(path: PathBuf) -> StatsPort {
        StatsPort { places: vec![StatsAddress::Unix(path)], token: None, tls: None, found_in: None }
    }

    fn new(places: Vec<StatsAddress>, token: Option<String>, trust: &ClientTrust) -> Result<StatsPort, String> {
        let has_tls = places.iter().any(|place| matches!(place, StatsAddress::Tls(_)));
        let tls = has_tls.then(|| CommandTls::new(trust)).transpose().map_err(|error| error.to_string())?;
        Ok(StatsPort { places, token, tls, found_in: None })
    }

    /// Asks for a path, and reads the JSON that comes.
    ///
    /// # Errors
    /// What went wrong, and what to do.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        self.send(&Method::GET, path).await
    }

    /// Sends a request without a body, and reads the JSON that comes. For commands that do nothing else.
    ///
    /// # Errors
    /// As [`StatsPort::ask`].
    pub(super) fn ask_blocking<T: DeserializeOwned>(&self, method: &Method, path: &str) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(self.send(method, path))
    }

    /// Sends a request with a body, and reads the JSON that comes.
    ///
    /// # Errors
    /// As [`StatsPort::ask`], or why it was refused.
    pub(super) async fn call(
        &self,
        method: &Method,
        path: &str,
        body: Option<String>,
        limit: Duration,
    ) -> Result<(StatusCode, Value), FailedCall> {
        let (status, body) = timeout(limit, self.request(method, path, body.unwrap_or_default()))
            .await
            .map_err(|_| format!("the stats port at {self} does not answer within {} s", limit.as_secs()))??;
        let value = serde_json::from_slice::<Value>(&body);
        match (status, value) {
            (status, Ok(value)) if status.is_success() => Ok((status, value)),
            (StatusCode::UNAUTHORIZED, _) => {
                Err(format!("the stats port at {self} wants another token: --token-file FILE").into())
            }
            (_, Ok(value)) => {
                let message = value["error"].as_str().unwrap_or("refused").to_owned();
                Err(FailedCall { message: shown(&message), report: value["report"].as_str().map(shown) })
            }
            (_, Err(_)) => Err(shown(String::from_utf8_lossy(&body).trim()).into()),
        }
    }

    async fn send<T: DeserializeOwned>(&self, method: &Method, path: &str) -> Result<T, String> {
        let (status, body) = match timeout(ANSWER_TIMEOUT, self.request(method, path, String::new())).await {
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
                let told = serde_json::from_slice::<Value>(&body).ok();
                let told = told.as_ref().and_then(|told| told["error"].as_str()).map(str::to_owned);
                let told = told.unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
                Err(told.chars().filter(|letter| !letter.is_control()).take(500).collect())
            }
        }
    }

    /// Whether it is ready; the error says why not.
    ///
    /// # Errors
    /// It is not ready, or does not answer.
    pub(super) async fn is_ready(&self) -> Result<(), String> {
        let (status, body) = timeout(ANSWER_TIMEOUT, self.request(&Method::GET, "/readyz", String::new()))
            .await
            .map_err(|_| format!("the stats port at {self} does not answer within {} s", ANSWER_TIMEOUT.as_secs()))??;
        let shown =
            |text: &str| text.chars().filter(|letter| !letter.is_control() || *letter == '\n').take(2000).collect();
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => Err(shown(String::from_utf8_lossy(&body).trim())),
            _ => Err(format!("what answers at {self} is no tidegate: /readyz says {status}")),
        }
    }

    async fn request(&self, method: &Method, path: &str, body: String) -> Result<(StatusCode, Bytes), String> {
        let mut first_error = None;
        for place in &self.places {
            match place.connect().await {
                Ok(stream) => return self.converse(place, stream, method, path, body).await,
                Err(error) => {
                    first_error.get_or_insert_with(|| {
                        let help = match &self.found_in {
                            Some(file) => format!(
                                "does tidegate run? If `admin.bind` in {} has changed since it read the file, name the \
                                 old address: --admin ADDRESS",
                                file.display()
                            ),
                            None => "does tidegate run there, with `admin.bind`?".to_owned(),
                        };
                        format!("the stats port at {place} cannot be reached: {error}\n  = help: {help}")
                    });
                }
            }
        }
        Err(first_error.unwrap_or_default())
    }

    async fn converse(
        &self,
        place: &StatsAddress,
        stream: PlainStream,
        method: &Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), String> {
        match (place, &self.tls) {
            (StatsAddress::Tls(address), Some(tls)) => {
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                let connected = tls.connect(host, stream).await;
                let stream = connected.map_err(|error| {
                    let plain = || {
                        let allow = allow_help(&error);
                        format!(
                            "the stats port at {place} does not speak TLS: {error}\n  = help: --admin \
                             http://{address}{allow}"
                        )
                    };
                    self.tls_error(place, &error).unwrap_or_else(plain)
                })?;
                self.exchange(stream, place, address, method, path, body).await
            }
            (StatsAddress::Tcp(address) | StatsAddress::Tls(address), _) => {
                self.exchange(stream, place, address, method, path, body).await
            }
            (StatsAddress::Unix(_), _) => self.exchange(stream, place, "localhost", method, path, body).await,
        }
    }

    /// What TLS said, if that is the cause, and what to do.
    fn tls_error(&self, place: &StatsAddress, error: &(dyn std::error::Error + 'static)) -> Option<String> {
        let CommandTlsFailure { reason, cure } = CommandTlsFailure::of(error)?;
        let help = match cure {
            Some(TlsCure::Authority) => "\n  = help: name the authority that signed its certificate: --ca FILE",
            Some(TlsCure::Certificate) => {
                "\n  = help: it requires a certificate that its client_auth.ca has signed: --cert FILE --key FILE"
            }
            Some(TlsCure::Plain) => "\n  = help: without TLS, its address is http://HOST:PORT",
            None => "",
        };
        Some(format!("TLS with the stats port at {place} failed: {reason}{help}"))
    }

    async fn exchange<S>(
        &self,
        stream: S,
        place: &StatsAddress,
        host: &str,
        method: &Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let told = |error: &(dyn std::error::Error + 'static)| {
            let help = match place {
                StatsAddress::Tcp(address) => {
                    format!("\n  = help: if it has TLS: --admin https://{address}{}", allow_help(error))
                }
                StatsAddress::Tls(_) => allow_help(error).to_owned(),
                StatsAddress::Unix(_) => String::new(),
            };
            let plain = || format!("the stats port at {place} does not answer in HTTP: {error}{help}");
            self.tls_error(place, error).unwrap_or_else(plain)
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::<Bytes>::from(body)).map_err(|error| told(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| told(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| told(&*error))?.to_bytes()))
        };
        // It moves the bytes of the answer. Of an answer that does not come, it knows the cause.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        let mut ended = None;
        loop {
            tokio::select! {
                biased;
                end = &mut connection, if ended.is_none() => ended = Some(end),
                answer = &mut answer => return match (answer, ended) {
                    (Err(_), Some(Err(cause))) => Err(told(&cause)),
                    (answer, _) => answer,
                },
            }
        }
    }
}

/// What to look at where a connection was closed without an answer.
fn allow_help(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let is_http = error.downcast_ref::<hyper::Error>();
        let is_io = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let is_closed = is_http.is_some_and(|error| error.is_incomplete_message() || error.is_canceled());
        let closings = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        if is_closed || is_io.is_some_and(|kind| closings.contains(&kind)) {
            return "\n  = help: if it has `admin.allow`: it closes connections of clients that are not in there";
        }
        cause = error.source();
    }
    ""
}

/// Percent-encoded, all but what is unreserved (RFC 3986, 2.3).
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_encoded() {
        assert_eq!(encoded("::1 é/&=%a-b._~"), "%3A%3A1%20%C3%A9%2F%26%3D%25a-b._~");
    }
}
