//! Which form of the metrics a client reads (RFC 9110, 12.5.1).

/// A form in which metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' protobuf messages, each behind its length, with native histograms.
    Protobuf,
    /// Prometheus' text format 0.0.4, also for browsers and for clients that say nothing.
    Text,
}

impl Form {
    /// The one that the entries of a client's Accept header like best; of those that it likes the same, the first.
    pub(super) fn wanted<'a>(entries: impl Iterator<Item = &'a str>) -> Form {
        let mut best = (Form::Text, 0.0);
        for (form, weight) in entries.filter_map(entry) {
            if weight > best.1 {
                best = (form, weight);
            }
        }
        best.0
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Form::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One entry of the header: the form it means and its weight; `None` when it means no form there is.
fn entry(text: &str) -> Option<(Form, f64)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let parameters: Vec<(String, &str)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
        .collect();
    let parameter = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let form = match kind.as_str() {
        "application/openmetrics-text" if matches!(parameter("version"), None | Some("1.0.0")) => Form::OpenMetrics,
        "application/vnd.google.protobuf"
            if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                && parameter("encoding") == Some("delimited") =>
        {
            Form::Protobuf
        }
        "text/plain" if matches!(parameter("version"), None | Some("0.0.4")) => Form::Text,
        "text/html" | "text/*" | "*/*" => Form::Text,
        _ => return None,
    };
    let weight = parameter("q").map_or(Some(1.0), |weight| weight.parse().ok())?;
    Some((form, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_what_it_reads() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let openmetrics = "application/openmetrics-text;version=1.0.0";
        let rest = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, form) in [
            // Prometheus 2.42, and with native histograms.
            (format!("{openmetrics},application/openmetrics-text;version=0.0.1;q=0.75,{rest}"), Form::OpenMetrics),
            (
                format!("{protobuf},{openmetrics};q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,{rest}"),
                Form::Protobuf,
            ),
            // Prometheus 3, which names how it wants names escaped.
            (format!("{openmetrics};escaping=allow-utf-8;q=0.6,{rest}"), Form::OpenMetrics),
            (format!("{protobuf};q=0.5,{openmetrics};q=0.8"), Form::OpenMetrics),
            (format!("{protobuf};q=0.7,{rest}"), Form::Protobuf),
            (format!("{openmetrics} ; Q=0.2 , TEXT/PLAIN"), Form::Text),
            // Prometheus 1 and 2.0, and Prometheus 3 told to read text alone.
            ("text/plain;version=0.0.4;q=0.3,*/*;q=0.1".to_owned(), Form::Text),
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
                    .to_owned(),
                Form::Text,
            ),
            ("text/plain".to_owned(), Form::Text),
            // A browser, curl, nothing.
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8".to_owned(), Form::Text),
            ("*/*".to_owned(), Form::Text),
            (String::new(), Form::Text),
            // Not what there is, not wanted at all, not to be read.
            (format!("{}, {openmetrics};q=0.1", protobuf.replace("delimited", "text")), Form::OpenMetrics),
            (format!("{protobuf};q=0"), Form::Text),
            (format!("{protobuf};q=much;;="), Form::Text),
            (format!("{protobuf};q=NaN"), Form::Text),
        ] {
            assert_eq!(Form::wanted(accept.split(',')), form, "{accept}");
        }
    }
}
