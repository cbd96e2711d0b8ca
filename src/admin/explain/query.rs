//! What `/explain` is asked: the query of its URL.

use std::net::IpAddr;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::admin::query::pairs;
use crate::net::name::normal;
use crate::net::protocol::ClientProtocol;
use crate::sniff::http::RequestHead;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct ExplainQuery {
    pub(super) client: IpAddr,
    pub(super) sni: Option<String>,
    pub(super) alpn: Vec<String>,
    /// The first request.
    pub(super) request: Option<RequestHead>,
    /// Its fields, for listeners with `protocol: http`.
    pub(super) headers: HeaderMap,
    /// The protocol of the first bytes.
    pub(super) protocol: Option<ClientProtocol>,
    pub(super) listener: Option<String>,
}

impl ExplainQuery {
    /// Reads a query. The error says what to write instead.
    pub(in crate::admin) fn parse(query: &str) -> Result<ExplainQuery, String> {
        let pairs = pairs(query).ok_or("the query is not percent-encoded UTF-8")?;
        let (mut client, mut sni, mut alpn, mut listener) = (None, None, Vec::new(), None);
        let (mut host, mut path, mut method, mut protocol) = (None, None, None, None);
        let mut headers = HeaderMap::new();
        for (key, value) in pairs {
            match key.as_str() {
                "client" => {
                    let ip = value.parse::<IpAddr>().map_err(|_| format!("client: `{value}` is no IP address"))?;
                    client = Some(ip.to_canonical());
                }
                "sni" => sni = Some(normal(&value).into_owned()),
                "alpn" => alpn.push(value),
                "host" => host = Some(normal(&value).into_owned()),
                "path" => path = Some(value),
                "method" => match Method::from_bytes(value.as_bytes()) {
                    Ok(known) => method = Some(known),
                    Err(_) => return Err(format!("method: `{value}` is no method, such as GET")),
                },
                "header" => {
                    let (name, value) =
                        field(&value).ok_or_else(|| format!("header: `{value}` is no field, such as `X-Canary: 1`"))?;
                    headers.append(name, value);
                }
                "protocol" => {
                    let known = ClientProtocol::ALL.into_iter().find(|protocol| protocol.name() == value);
                    let names = ClientProtocol::ALL.map(ClientProtocol::name).join(", ");
                    protocol = Some(known.ok_or_else(|| format!("protocol: `{value}` is none of {names}"))?);
                }
                "listener" => listener = Some(value),
                _ => {
                    let keys = "client, sni, alpn, host, path, method, header, protocol and listener";
                    return Err(format!("`{key}` is not known: {keys} are"));
                }
            }
        }
        let client = client.ok_or("whose connection? client=IP is missing")?;
        let has_request = host.is_some() || path.is_some() || method.is_some() || !headers.is_empty();
        let request = has_request.then(|| RequestHead {
            method: method.as_ref().map_or("GET", Method::as_str).into(),
            host: host.map(Into::into),
            path: path.as_deref().unwrap_or("/").into(),
            length: 0,
        });
        Ok(ExplainQuery { client, sni, alpn, request, headers, protocol, listener })
    }
}

/// `Name: value`.
fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read() {
        let question =
            ExplainQuery::parse("client=10.0.0.7&sni=A.Example.&alpn=h2&alpn=http%2F1.1&protocol=ssh&listener=in")
                .unwrap();
        let wanted = ExplainQuery {
            client: [10, 0, 0, 7].into(),
            sni: Some("a.example".to_owned()),
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            request: None,
            headers: HeaderMap::new(),
            protocol: Some(ClientProtocol::Ssh),
            listener: Some("in".to_owned()),
        };
        assert_eq!(question, wanted);
        assert_eq!(ExplainQuery::parse("client=::ffff:10.0.0.7").unwrap().client, wanted.client);
        let cases = [
            ("", "whose connection? client=IP is missing"),
            ("client=nobody", "client: `nobody` is no IP address"),
            (
                "client=::1&port=2",
                "`port` is not known: client, sni, alpn, host, path, method, header, protocol and listener are",
            ),
            ("client=::1&method=%20", "method: ` ` is no method, such as GET"),
            ("client=::1&header=a", "header: `a` is no field, such as `X-Canary: 1`"),
            ("client=::1&protocol=smtp", "protocol: `smtp` is none of tls, http, ssh, postgres, redis"),
            ("client=%", "the query is not percent-encoded UTF-8"),
        ];
        for (query, error) in cases {
            assert_eq!(ExplainQuery::parse(query).unwrap_err(), error, "{query}");
        }
    }
}
