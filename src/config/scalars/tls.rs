//! TLS versions, ALPN names, server names and PEM files.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::address::host_name;
use crate::config::model::{Authorities, TlsVersion};
use crate::config::report::{Diagnostic, shown, similar};

/// The minimum version of TLS: `1.2` or `1.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MinVersion(pub(crate) TlsVersion);

impl FromStr for MinVersion {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<MinVersion, Diagnostic> {
        match text {
            "1.2" => Ok(MinVersion(TlsVersion::V1_2)),
            "1.3" => Ok(MinVersion(TlsVersion::V1_3)),
            _ => {
                let diagnostic = Diagnostic::new(format!("`{}` is not a supported TLS version", shown(text)));
                Err(diagnostic.hint("write \"1.2\" or \"1.3\"; TLS 1.0 and 1.1 are deprecated (RFC 8996)"))
            }
        }
    }
}

impl fmt::Display for MinVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        })
    }
}

/// An ALPN protocol name: 1 to 255 bytes (RFC 7301, 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProtocolName(pub(crate) String);

impl FromStr for ProtocolName {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<ProtocolName, Diagnostic> {
        match text.len() {
            0 => Err(Diagnostic::new("the protocol name must not be empty").hint("for example h2 or postgresql")),
            1..=255 => Ok(ProtocolName(text.to_owned())),
            length => Err(Diagnostic::new(format!("the protocol name is {length} bytes long")).hint("at most 255")),
        }
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name to verify in a backend's certificate: a host name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerName(pub(crate) String);

impl FromStr for ServerName {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<ServerName, Diagnostic> {
        let wrong = || Diagnostic::new(format!("`{}` is not a host name", shown(text)));
        if text.parse::<IpAddr>().is_ok() {
            return Ok(ServerName(text.to_owned()));
        }
        if text.starts_with('[') || text.contains("://") || text.contains(':') {
            return Err(wrong().hint("write the name or the IP address alone, without brackets, scheme and port"));
        }
        if text.starts_with("*.") {
            return Err(wrong().hint("write one name that the certificate is for, without a star"));
        }
        host_name(text)?;
        Ok(ServerName(text.to_owned()))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a file, relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

impl FromStr for FilePath {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<FilePath, Diagnostic> {
        let diagnostic = if text.contains("-----BEGIN") {
            Diagnostic::new("this is the content of a PEM file, not its path")
                .hint("save it to a file, and write the path of the file")
        } else if text.is_empty() {
            Diagnostic::new("the path of a file must not be empty").hint("for example /etc/tidegate/server.pem")
        } else if text.ends_with('/') || text.contains(char::is_control) {
            Diagnostic::new(format!("`{}` is not the path of a file", shown(text)))
                .hint("for example /etc/tidegate/server.pem")
        } else {
            return Ok(FilePath(PathBuf::from(text)));
        };
        Err(diagnostic)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Trusted CAs: `system`, or a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustedBy(pub(crate) Authorities);

impl FromStr for TrustedBy {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<TrustedBy, Diagnostic> {
        if text == "system" {
            return Ok(TrustedBy(Authorities::System));
        }
        if !text.contains(['/', '.']) && similar(text, ["system"]).is_some() {
            let diagnostic = Diagnostic::new(format!("`{text}` is neither system nor a path"));
            return Err(diagnostic.hint("did you mean `system`? A path has a slash: ./ca.pem"));
        }
        text.parse().map(|FilePath(path)| TrustedBy(Authorities::File(path)))
    }
}

impl fmt::Display for TrustedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Authorities::System => f.write_str("system"),
            Authorities::File(path) => path.display().fmt(f),
        }
    }
}
