//! The dashboard: one page that shows what is true now and since it was opened, without a reload.
//!
//! The page is files that are part of the binary ([`asset`]). What it shows comes by server-sent events ([`feed`]), whose
//! text is made in [`payload`]; histograms of the one listener or backend that is shown are requested
//! ([`series`]), and `/api/connections` while its list is open. It keeps its own history, so that a page in the background costs nothing here.

pub(super) mod feed;
mod payload;
mod series;

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

pub(super) use self::series::series;
use super::response::{ResponseBody, whole};

/// Everything comes from here and nothing is in the page's text but the page: no script, style or host that somebody
/// put into a name could do anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The page and its files: nothing in them is secret, so that they need no token.
const ASSETS: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("index.html")),
    ("/dashboard/style.css", STYLE, include_str!("style.css")),
    ("/dashboard/app.js", SCRIPT, include_str!("app.js")),
    ("/dashboard/changes.js", SCRIPT, include_str!("changes.js")),
    ("/dashboard/charts.js", SCRIPT, include_str!("charts.js")),
    ("/dashboard/connections.js", SCRIPT, include_str!("connections.js")),
    ("/dashboard/latency.js", SCRIPT, include_str!("latency.js")),
    ("/dashboard/table.js", SCRIPT, include_str!("table.js")),
    ("/dashboard/text.js", SCRIPT, include_str!("text.js")),
    ("/dashboard/uplot/uPlot.iife.min.js", SCRIPT, include_str!("uplot/uPlot.iife.min.js")),
    ("/dashboard/uplot/uPlot.min.css", STYLE, include_str!("uplot/uPlot.min.css")),
    ("/dashboard/uplot/LICENSE", TEXT, include_str!("uplot/LICENSE")),
];

/// The file of the page under this path.
pub(super) fn asset(path: &str) -> Option<Response<ResponseBody>> {
    let (_, content_type, text) = ASSETS.into_iter().find(|(known, ..)| *known == path)?;
    let mut response = whole(StatusCode::OK, content_type, text);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses that a text names, but those of licences and of namespaces.
    fn hosts(text: &str) -> Vec<&str> {
        let known = |rest: &str| rest.starts_with("github.com/leeoniya/uPlot") || rest.starts_with("www.w3.org/");
        text.split("://").skip(1).filter(|rest| !known(rest)).collect()
    }

    #[test]
    fn every_file_of_the_page_is_there_and_nothing_is_elsewhere() {
        for (path, content_type, text) in ASSETS {
            assert!(asset(path).is_some_and(|response| response.status() == StatusCode::OK), "{path}");
            assert!(hosts(text).is_empty(), "{path} names another host");
            if content_type == HTML {
                let named: Vec<&str> =
                    text.split("\"/dashboard/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
                assert!(named.len() >= 4, "{named:?}");
                for name in named {
                    assert!(asset(&format!("/dashboard/{name}")).is_some(), "{path} names {name}");
                }
            }
        }
        assert!(asset("/dashboard/").is_none());
    }

    #[test]
    fn the_page_may_load_nothing_from_elsewhere() {
        let page = asset("/").unwrap();
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }
}
