//! What is counted of HTTP where it is watched.

use serde::{Deserialize, Serialize};

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    Connect,
    #[serde(rename = "other", other)]
    Other,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 10] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Delete,
        Method::Patch,
        Method::Options,
        Method::Trace,
        Method::Connect,
        Method::Other,
    ];

    /// The method itself, or `other`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Connect => "CONNECT",
            Method::Other => "other",
        }
    }

    /// The one that is written so; methods are case-sensitive (RFC 9110, 9.1).
    pub fn named(name: &str) -> Method {
        Method::ALL.into_iter().find(|method| method.name() == name).unwrap_or(Method::Other)
    }
}

/// The first digit of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum StatusClass {
    #[serde(rename = "1xx")]
    Informational,
    #[serde(rename = "2xx")]
    Successful,
    #[serde(rename = "3xx")]
    Redirection,
    #[serde(rename = "4xx")]
    ClientError,
    #[serde(rename = "5xx")]
    ServerError,
}

impl StatusClass {
    /// Every class.
    pub const ALL: [StatusClass; 5] = [
        StatusClass::Informational,
        StatusClass::Successful,
        StatusClass::Redirection,
        StatusClass::ClientError,
        StatusClass::ServerError,
    ];

    /// `1xx` to `5xx`.
    pub fn name(self) -> &'static str {
        match self {
            StatusClass::Informational => "1xx",
            StatusClass::Successful => "2xx",
            StatusClass::Redirection => "3xx",
            StatusClass::ClientError => "4xx",
            StatusClass::ServerError => "5xx",
        }
    }

    /// That of a status; `None` below 100 and from 600 on.
    pub fn of(status: u16) -> Option<StatusClass> {
        let class = usize::from(status / 100).checked_sub(1)?;
        StatusClass::ALL.get(class).copied()
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpEvent {
    /// A request got its response, to the end.
    Responded(Method, StatusClass),
    /// The connection ended before a request's response did.
    Unanswered,
    /// A connection turned into something that is no HTTP to be watched: an upgrade, a tunnel, or what cannot be read.
    Opaque,
}

/// How often it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCounts {
    responded: [[u64; StatusClass::ALL.len()]; Method::ALL.len()],
    unanswered: u64,
    opaque: u64,
}

impl HttpCounts {
    /// Counts one more.
    pub fn count(&mut self, event: HttpEvent) {
        match event {
            HttpEvent::Responded(method, class) => self.responded[method as usize][class as usize] += 1,
            HttpEvent::Unanswered => self.unanswered += 1,
            HttpEvent::Opaque => self.opaque += 1,
        }
    }

    /// Requests by method and class of status that got their response; those that never came are left out.
    pub fn responded(&self) -> impl Iterator<Item = (Method, StatusClass, u64)> {
        Method::ALL.into_iter().flat_map(move |method| {
            StatusClass::ALL.into_iter().filter_map(move |class| {
                let count = self.responded[method as usize][class as usize];
                (count > 0).then_some((method, class, count))
            })
        })
    }

    /// Requests whose connection ended before their response did.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Connections that turned into something that is not watched.
    pub fn opaque(&self) -> u64 {
        self.opaque
    }

    /// Requests: those that were answered, and those that were not.
    pub fn requests(&self) -> u64 {
        self.responded.iter().flatten().sum::<u64>() + self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serialized_names_are_those_of_every_format() {
        assert!(Method::ALL.iter().all(|it| serde_json::to_value(it).unwrap() == it.name()));
        assert!(StatusClass::ALL.iter().all(|it| serde_json::to_value(it).unwrap() == it.name()));
        assert_eq!(serde_json::from_str::<Method>("\"BREW\"").unwrap(), Method::Other);
    }

    #[test]
    fn statuses_have_classes() {
        let cases = [(0, None), (99, None), (100, Some("1xx")), (299, Some("2xx")), (503, Some("5xx")), (600, None)];
        for (status, class) in cases {
            assert_eq!(StatusClass::of(status).map(StatusClass::name), class, "{status}");
        }
    }

    #[test]
    fn what_was_counted_is_there() {
        let mut counts = HttpCounts::default();
        for event in [
            HttpEvent::Responded(Method::named("GET"), StatusClass::Successful),
            HttpEvent::Responded(Method::Get, StatusClass::Successful),
            HttpEvent::Responded(Method::named("get"), StatusClass::ServerError),
            HttpEvent::Unanswered,
            HttpEvent::Opaque,
        ] {
            counts.count(event);
        }
        let responded: Vec<_> = counts.responded().collect();
        let wanted = [(Method::Get, StatusClass::Successful, 2), (Method::Other, StatusClass::ServerError, 1)];
        assert_eq!(responded, wanted);
        assert_eq!((counts.requests(), counts.unanswered(), counts.opaque()), (4, 1, 1));
    }
}
