//! The dashboard of the stats port, in a real browser.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::backend::Backend;
use crate::support::browser::Browser;
use crate::support::client::{Place, connect, read_to_end, try_connect};
use crate::support::observed::{ANSWERED, Observed, requests};
use crate::support::stats::{ADMIN, backend, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, tell};

/// A name that would do something if it were ever taken for more than text.
pub(crate) const NASTY: &str = "<script>document.title='caught'</script><img src=x onerror=alert(1)>";

pub(crate) fn screenshots(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots").join(name)
}

/// Opens the page, and waits in it until it shows this many backends.
pub(crate) fn open(browser: &Browser, at: SocketAddr, backends: &str) {
    browser.open(&format!("http://{at}/"));
    wait_for(browser, &format!("document.getElementById('fact-up').textContent.endsWith('of {backends}')"));
}

/// Waits in the page until this holds.
pub(crate) fn wait_for(browser: &Browser, condition: &str) {
    let script = format!(
        "const holds = () => {condition};
         return holds() || await new Promise((resolve) => {{
             const watch = () => {{ if (holds()) {{ observer.disconnect(); resolve(true); }} }};
             const observer = new MutationObserver(watch);
             observer.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
             setTimeout(() => {{ observer.disconnect(); resolve(false); }}, 30000);
         }});"
    );
    if browser.run_async(&script) != Value::Bool(true) {
        panic!(
            "never in the page: {condition}\n{}\n{:?}",
            browser.run("return document.body.innerText.slice(0, 2000)"),
            browser.console()
        );
    }
}

/// Nothing went wrong in the page, and it asked nobody but the stats port.
pub(crate) fn assert_clean(browser: &Browser, at: SocketAddr) {
    let console = browser.console();
    let requests = browser.requests();
    let origin = format!("http://{at}/");
    assert!(requests.iter().any(|url| url.starts_with(&format!("{origin}events"))), "{requests:?}");
    let elsewhere: Vec<&String> =
        requests.iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:image/svg")).collect();
    assert!(console.is_empty() && elsewhere.is_empty(), "console: {console:?}, requests: {elsewhere:?}");
}

/// The texts of what a selector finds.
pub(crate) fn texts(browser: &Browser, selector: &str) -> Vec<String> {
    let script = format!("return [...document.querySelectorAll({selector:?})].map((node) => node.textContent)");
    let found = browser.run(&script);
    found.as_array().expect("texts").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_backend_goes_down_and_the_page_shows_it() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let authority = Authority::new();
    let certificate = authority.issue_with(&["shop.example"], |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(5 * 86_400 + 3600)).into();
    });
    let yaml = format!(
        "admin: {{ bind: \"127.0.0.1:0\" }}
listeners:
  - {{ name: in, bind: \"127.0.0.1:0\", pool: p }}
  - {{ name: secure, bind: \"127.0.0.1:0\", pool: p, tls: {{ certificates: [{}] }} }}
pools:
  - name: p
    health: {{ tcp: {{}}, interval: 200ms, timeout: 1s, rise: 2, fall: 2 }}
    backends: [{{ name: one, address: \"{}\" }}, {{ name: two, address: \"{}\" }}]
  - name: {}
    backends: [{{ name: {}, address: \"{}\" }}]
",
        certificate.yaml(),
        one.place(),
        two.place(),
        Value::from(format!("pool {NASTY}")),
        Value::from(NASTY),
        one.place(),
    );
    let tidegate = Tidegate::start(&yaml);
    let at = tidegate.stats_port().tcp();
    tidegate.wait_for_up("two");
    let browser = Browser::start();
    open(&browser, at, "3");

    assert_eq!(texts(&browser, "#backends-table tbody button"), ["one", "two", NASTY], "in the order of the file");
    assert_eq!(texts(&browser, "#backends-table tbody .word"), ["up", "up", "unchecked"]);
    assert_eq!(texts(&browser, "#pools .word"), ["2 of 2 up", "1 of 1 unchecked"]);
    assert_eq!(texts(&browser, "#fact-up, #fact-unchecked"), ["2 of 3", "1 unchecked"]);
    let filtered = |state: &str| {
        browser.run(&format!(
            "const filter = document.getElementById('filter'); filter.value = '{state}'; filter.dispatchEvent(new Event('input'))"
        ));
        texts(&browser, "#backends-table tbody button")
    };
    assert_eq!(
        (filtered("up"), filtered("unchecked")),
        (vec!["one".to_owned(), "two".to_owned()], vec![NASTY.to_owned()])
    );
    assert_eq!((filtered("down").len(), filtered("all").len()), (0, 3));
    assert_eq!(texts(&browser, "#listeners tbody th"), ["in", "secure"]);
    assert!(is_hidden(&browser, "#listeners .http"), "no HTTP, no column for it");
    assert!(texts(&browser, "#latency-of option").contains(&format!("pool {NASTY} / {NASTY}")));
    assert_eq!(browser.run("return document.title"), "tidegate");
    assert_eq!(texts(&browser, "#certificates tbody th"), ["shop.example"]);
    assert!(texts(&browser, "#certificates [data-state=part] .word")[0].ends_with("in 5 days"));
    assert_eq!(texts(&browser, "#status-text"), ["ready"]);

    // The page writes down by itself when it shows it; a mark on it shows that it is the same page still.
    browser.run(
        "window.same = true;
         window.shown = new Promise((resolve) => {
             const word = () => [...document.querySelectorAll('#backends-table tbody tr')]
                 .some((row) => row.querySelector('button')?.textContent === 'two' && row.querySelector('.word').textContent === 'down');
             new MutationObserver(() => { if (word()) resolve(Date.now() / 1000); })
                 .observe(document.getElementById('backends-table'), { subtree: true, childList: true, characterData: true });
         });",
    );
    drop(two);
    let mut since = 0.0;
    eventually(DEADLINE, "/stats says that two is down", || {
        let view = tidegate.view();
        let two = backend(&view, "two");
        since = two.since;
        !two.up
    });
    let shown = browser.run_async("return window.shown").as_f64().unwrap();
    tell(&format!("a backend that went down was shown after {:.2} s", shown - since));
    assert!(shown - since < 3.0, "shown {:.2} s after it went down", shown - since);
    assert_eq!(browser.run("return window.same"), true, "without a reload");

    wait_for(&browser, "document.querySelector('#transitions li .word')?.textContent === 'down'");
    assert!(texts(&browser, "#transitions li")[0].contains("p / two"));
    assert!(texts(&browser, "#transitions li small")[0].contains("refused"), "the reason");
    assert!(
        texts(&browser, "#backends-table small")[0].starts_with("connection refused · "),
        "those that are down come first"
    );
    assert_eq!(texts(&browser, "#news"), ["p / two is down: connection refused"], "for who does not see it");
    assert_eq!(browser.run("return document.title"), "(1 down) tidegate");
    assert_eq!(
        browser.run("return document.querySelectorAll('#backends-table img, #latency img, body script').length"),
        0
    );

    assert!(is_hidden(&browser, "#rejected-files"));
    fs::write(&certificate.cert, "rubbish").unwrap();
    wait_for(&browser, "document.querySelector('#rejected-files li') !== null");
    let refused = &texts(&browser, "#rejected-files li")[0];
    assert!(
        refused.starts_with("listener secure: ") && refused.contains(certificate.cert.to_str().unwrap()),
        "{refused}"
    );
    assert!(!is_hidden(&browser, "#rejected-files"));
    assert_clean(&browser, at);
}

#[test]
fn a_log_that_cannot_be_written_is_shown() {
    let backend = Backend::named("a");
    let yaml = format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
        backend.place()
    );
    let tidegate = Tidegate::with(&yaml).log("{ format: json, access: /dev/full }").start();
    let at = tidegate.stats_port().tcp();
    let browser = Browser::start();
    open(&browser, at, "1");
    assert!(is_hidden(&browser, "#logs"));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"a");
    wait_for(&browser, "document.querySelector('#logs li') !== null");
    let line = &texts(&browser, "#logs li")[0];
    assert!(
        line.starts_with("access log cannot be written since ")
            && line.ends_with(": No space left on device (os error 28) (1 line lost)"),
        "{line}"
    );
    assert!(!is_hidden(&browser, "#logs"));
    assert_clean(&browser, at);
}

#[test]
fn http_is_shown_where_it_was_seen() {
    let observed = Observed::start();
    let at = observed.port.tcp();
    let browser = Browser::start();
    browser.look("light", 1400, 1180);
    open(&browser, at, "7");
    let errors: u64 = ANSWERED.iter().filter(|(_, status, _)| *status >= 500).map(|(.., count)| count).sum();
    assert_eq!((requests(), errors), (17, 4));
    for (table, key) in [("#listeners", "web"), ("#backends-table", "site")] {
        let rows = texts(&browser, &format!("{table} tbody tr:not(.space)"));
        let cells = texts(&browser, &format!("{table} tbody .http"));
        let seen: Vec<_> = rows.iter().zip(&cells).filter(|(_, cell)| *cell != "–").collect();
        let [(row, cell)] = seen[..] else { panic!("{table}: {seen:?}") };
        assert!(row.contains(key) && cell.ends_with("17, 23.5 % 5xx"), "{table}: {row:?} {cell:?}");
    }
    assert!(!is_hidden(&browser, "#listeners .http") && !is_hidden(&browser, "#backends-table .http"));
    browser.screenshot(&screenshots("http.png"), true);
    browser.look("light", 1020, 1180);
    assert!(is_hidden(&browser, "#backends-table .http"), "names and pools have the room first");
    assert_clean(&browser, at);
}

pub(crate) fn is_hidden(browser: &Browser, selector: &str) -> bool {
    let script = format!("return getComputedStyle(document.querySelector({selector:?})).display === 'none'");
    browser.run(&script).as_bool().expect("a truth")
}

/// Connections one after the other, with a request and an answer or two each.
fn load(place: &Place, stop: &AtomicBool) {
    let mut rng = fastrand::Rng::new();
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut stream) = try_connect(place) else { continue };
        for _ in 0..rng.u32(1..20) {
            let mut buffer = [7; 3000];
            if stream.write_all(&buffer).and_then(|()| stream.read_exact(&mut buffer)).is_err() {
                break;
            }
        }
    }
}

/// An echo that takes its time: mostly little, sometimes much.
fn slow_echo(number: u64) -> Backend {
    Backend::start(crate::support::backend::in_thread(move |mut stream| {
        let mut rng = fastrand::Rng::new();
        let mut buffer = [0; 3000];
        while stream.read_exact(&mut buffer).is_ok() {
            let pause = if rng.f32() < 0.03 {
                rng.u64(8_000..40_000)
            } else {
                400 + (300.0 * (number + 1) as f64 * -rng.f64().max(1e-9).ln()) as u64
            };
            thread::sleep(Duration::from_micros(pause));
            if stream.write_all(&buffer).is_err() {
                return;
            }
        }
    }))
}

#[test]
fn latency_and_traffic_are_drawn_in_light_and_dark_and_on_a_phone() {
    let backends: Vec<Backend> = (0..4).map(slow_echo).collect();
    let authority = Authority::new();
    let certificate = authority.issue_with(&["shop.example", "*.shop.example"], |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(60 * 86_400)).into();
    });
    let mut yaml = format!(
        "admin: {{ bind: \"127.0.0.1:0\" }}
listeners:
  - {{ name: shop, bind: \"127.0.0.1:0\", pool: shop, max_connections: 5000 }}
  - {{ name: shop-tls, bind: \"127.0.0.1:0\", pool: shop, tls: {{ certificates: [{}] }} }}
  - {{ name: postgres, bind: \"127.0.0.1:0\", pool: postgres }}
pools:
",
        certificate.yaml()
    );
    for (pool, backends) in [("shop", &backends[..3]), ("postgres", &backends[3..])] {
        _ = writeln!(
            yaml,
            "  - name: {pool}\n    balance: least_connections\n    health: {{ tcp: {{}}, interval: 1s }}"
        );
        yaml += "    backends:\n";
        for (number, backend) in backends.iter().enumerate() {
            _ = writeln!(yaml, "      - {{ name: {pool}-{}, address: \"{}\" }}", number + 1, backend.place());
        }
        _ = writeln!(yaml, "      - {{ name: {pool}-8, address: \"127.0.0.1:1\" }}");
        _ = writeln!(yaml, "      - {{ name: {pool}-9, address: \"{}\", backup: true }}", backends[0].place());
    }
    let tidegate = Tidegate::start(&yaml);
    let at = tidegate.stats_port().tcp();
    let browser = Browser::start();
    browser.look("light", 1400, 1180);
    open(&browser, at, "8");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for listener in ["shop", "shop", "shop", "postgres", "postgres"] {
            let (place, stop) = (tidegate.at(listener), &stop);
            scope.spawn(move || load(&place, stop));
        }
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _stop = Stop(&stop);
        // Refused, for the journal.
        for _ in 0..3 {
            let mut client = connect(&tidegate.at("shop-tls"));
            _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| client.read(&mut [0]));
        }
        browser.run(
            "const span = document.getElementById('span'); span.value = '120'; span.dispatchEvent(new Event('change'))",
        );
        // Some seconds have been measured, drawn, and said as text too.
        wait_for(&browser, "document.querySelectorAll('#rejections li strong').length > 0");
        seconds(&browser, long_enough());
        let median = texts(&browser, "#chart-percentiles dd")[0].clone();
        assert!(median.ends_with("ms") || median.ends_with("µs"), "{median}");
        assert!(colours(&browser) > 3, "the heat map has {} colours", colours(&browser));

        browser.screenshot(&screenshots("light.png"), false);
        browser.screenshot(&screenshots("light-whole.png"), true);
        browser.look("dark", 1400, 1180);
        seconds(&browser, 2);
        let paper = browser.run("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(paper, "rgb(13, 20, 27)", "dark where that is wished for");
        browser.screenshot(&screenshots("dark.png"), false);
        browser.screenshot(&screenshots("dark-whole.png"), true);
        for (scheme, width) in [("dark", 390), ("light", 390), ("light", 320), ("light", 800)] {
            browser.look(scheme, width, 844);
            seconds(&browser, 2);
            let beyond = browser
                .run("const { scrollWidth, clientWidth } = document.documentElement; return scrollWidth - clientWidth");
            assert_eq!(beyond, 0, "nothing is beyond the right edge, {width} wide");
            browser.screenshot(&screenshots(&format!("phone-{scheme}-{width}.png")), true);
        }

        // Another one, by the keyboard alone: from the search to the rows, down, and Enter.
        browser.run("document.getElementById('search').focus()");
        let in_rows = "return document.activeElement.closest('#backends-table tbody') !== null";
        assert!((0..30).any(|_| {
            browser.press("Tab");
            browser.run(in_rows) == true
        }));
        let first = browser.run("return document.activeElement.textContent");
        browser.press("ArrowDown");
        let focused = browser.run("return document.activeElement.textContent").as_str().unwrap().to_owned();
        assert_ne!(first, focused);
        let pool = browser.run("return document.activeElement.closest('tr').children[2].textContent");
        browser.press("Enter");
        wait_for(
            &browser,
            &format!(
                "document.getElementById('latency-of').selectedOptions[0].textContent === '{} / {focused}'",
                pool.as_str().unwrap()
            ),
        );
    });
    assert_accessible(&browser);
    assert_clean(&browser, at);
}

/// So long the page watches before it is pictured: longer with `DASHBOARD_SECONDS`, for pictures to keep.
fn long_enough() -> u32 {
    std::env::var("DASHBOARD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Waits for as many updates of the page.
fn seconds(browser: &Browser, count: u32) {
    for _ in 0..count {
        assert!(updates(browser, 1, "").is_object());
    }
}

/// How many different colours the heat map has where it is painted.
fn colours(browser: &Browser) -> u64 {
    let script = "const canvas = document.querySelector('#chart-heat canvas');
        const { data } = canvas.getContext('2d').getImageData(60, 8, canvas.width - 68, canvas.height - 40);
        return new Set(new Uint32Array(data.buffer)).size";
    browser.run(script).as_u64().unwrap()
}

/// What a screen reader stands on.
pub(crate) fn assert_accessible(browser: &Browser) {
    let nothing = |what: &str, script: &str| {
        let found = browser.run(&format!("return {script}.map((node) => node.outerHTML)"));
        assert_eq!(found, Value::Array(Vec::new()), "{what}");
    };
    nothing(
        "fields without a label",
        "[...document.querySelectorAll('select, input:not([hidden])')].filter((node) => node.labels.length === 0)",
    );
    nothing("headers without a scope", "[...document.querySelectorAll('th')].filter((node) => !node.scope)");
    nothing(
        "buttons without a text",
        "[...document.querySelectorAll('button')].filter((node) => !node.textContent.trim())",
    );
    nothing(
        "pictures without a text",
        "[...document.querySelectorAll('canvas')].filter((node) => !node.ariaLabel && !node.closest('[aria-hidden]'))",
    );
    let once =
        browser.run("return ['main', 'header', 'h1', '[aria-sort]'].map((of) => document.querySelectorAll(of).length)");
    assert_eq!(once, serde_json::json!([1, 1, 1, 1]));
    assert_eq!(browser.run("return document.documentElement.lang"), "en");
}

/// Watches the page for so many updates: how long their scripts took at most (ms), how many nodes were touched at most,
/// and what `script` then returns.
fn updates(browser: &Browser, count: u32, script: &str) -> Value {
    browser.run_async(&format!(
        "return new Promise((resolve) => {{
             const ends = [];
             let [took, touched, updates] = [0, 0, -1];
             const mutations = new MutationObserver((list) => {{ touched += list.length; }});
             mutations.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
             let most = 0;
             const observer = new PerformanceObserver((list) => {{
                 for (const entry of list.getEntriesByName('update')) {{
                     touched += mutations.takeRecords().length;
                     updates += 1;
                     // What came before the first update is not all of one.
                     if (updates > 0) {{ most = Math.max(most, touched); took = Math.max(took, entry.duration); }}
                     touched = 0;
                     if (updates === {count}) {{ observer.disconnect(); resolve({{ took, most, value: (() => {{ {script} }})() }}); }}
                 }}
             }});
             observer.observe({{ entryTypes: ['measure'] }});
         }});"
    ))
}

#[test]
fn a_thousand_backends() {
    let backend = Backend::echo();
    let mut yaml = String::from(
        "admin: { bind: \"127.0.0.1:0\" }\nlisteners: [{ name: in, bind: \"127.0.0.1:0\", pool: p0 }]\npools:\n",
    );
    for pool in 0..10 {
        _ = writeln!(yaml, "  - name: p{pool}\n    backends:");
        for number in 0..100 {
            _ = writeln!(yaml, "      - {{ name: b{}, address: \"{}\" }}", 100 * pool + number, backend.place());
        }
    }
    let tidegate = Tidegate::start(&yaml);
    let at = tidegate.stats_port().tcp();
    let browser = Browser::start();
    let began = Instant::now();
    open(&browser, at, "1,000");
    tell(&format!("1,000 backends: shown after {:.2} s", began.elapsed().as_secs_f64()));

    let idle = updates(&browser, 5, "return document.querySelectorAll('#backends-table tr').length");
    let (took, touched, rows) =
        (idle["took"].as_f64().unwrap(), idle["most"].as_u64().unwrap(), idle["value"].as_u64().unwrap());
    tell(&format!(
        "1,000 backends, idle: an update took at most {took:.1} ms and touched {touched} nodes; {rows} rows are drawn"
    ));
    assert!(touched <= 12, "{touched} nodes were touched though nothing happened");
    assert!(rows < 60, "{rows} rows, though few are in sight");

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| load(&tidegate.at("in"), &stop));
        let busy = updates(&browser, 5, "return 0");
        stop.store(true, Ordering::SeqCst);
        tell(&format!(
            "1,000 backends, busy: an update took at most {:.1} ms and touched {} nodes",
            busy["took"].as_f64().unwrap(),
            busy["most"]
        ));
        assert!(busy["most"].as_u64().unwrap() < 2000, "only those in sight are touched: {busy}");
    });

    // All of them can be scrolled to, sorted and found.
    browser.run("document.querySelector('#backends-table tbody button').focus()");
    browser.press("End");
    wait_for(&browser, "document.activeElement.textContent === 'b999'");
    let last = browser.run(
        "const scroll = document.getElementById('backends-scroll');
         return [scroll.scrollHeight - scroll.querySelector('thead').offsetHeight, document.activeElement.closest('tr').ariaRowIndex]",
    );
    assert_eq!(last, serde_json::json!([44 * 1000, "1001"]), "rows that are not drawn have their room");
    browser.run(
        "document.activeElement.blur(); [...document.querySelectorAll('#backends-table thead button')][1].click()",
    );
    browser.run("[...document.querySelectorAll('#backends-table thead button')][1].click()");
    browser.run("document.getElementById('backends-scroll').scrollTop = 0");
    wait_for(&browser, "document.querySelector('#backends-table tbody button').textContent === 'b999'");
    assert_eq!(texts(&browser, "[aria-sort=descending] button"), ["Backend"]);
    browser.run("const search = document.getElementById('search'); search.value = 'P7 b70'; search.dispatchEvent(new Event('input'))");
    wait_for(&browser, "document.getElementById('count').textContent === '10 of 1,000 shown'");
    assert_eq!(texts(&browser, "#backends-table tbody button")[0], "b709");
    assert_clean(&browser, at);
}

#[test]
fn the_page_says_when_tidegate_is_gone_and_goes_on_when_it_is_back() {
    let backend = Backend::echo();
    let port = crate::support::free_port();
    let yaml = |name: &str| {
        format!(
            "admin: {{ bind: \"127.0.0.1:{port}\" }}\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ name: {name}, address: \"{}\" }}] }}]\n",
            backend.place()
        )
    };
    let tidegate = Tidegate::start(&yaml("before"));
    let at = tidegate.stats_port().tcp();
    let browser = Browser::start();
    open(&browser, at, "1");
    browser.run("window.same = true");
    drop(tidegate);
    wait_for(
        &browser,
        "document.getElementById('stream-text').textContent.startsWith('No answer from tidegate since ')",
    );
    let _tidegate = Tidegate::start(&yaml("after"));
    wait_for(&browser, "document.querySelector('#backends-table tbody button')?.textContent === 'after'");
    assert_eq!(texts(&browser, "#stream-text"), ["Live"]);
    assert_eq!(browser.run("return window.same"), true);
    // Only that nobody answered meanwhile.
    let console = browser.console();
    assert!(console.iter().all(|line| line.contains("Failed to load resource: net::ERR_")), "{console:?}");
}

#[test]
fn who_stops_to_watch_gives_the_place_back() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"127.0.0.1:0\" }}\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        backend.place()
    ));
    let at = tidegate.stats_port().tcp();
    let files = tidegate.open_files();
    // Four times as many as there may be at once.
    for _ in 0..4 {
        let viewers: Vec<_> = (0..64)
            .map(|_| {
                let mut stream = connect(&Place::Tcp(at));
                stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes()).unwrap();
                let mut text = Vec::new();
                while !text.windows(11).any(|window| window == b"event: view") {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0, "{}", String::from_utf8_lossy(&text));
                    text.extend_from_slice(&buffer[..count]);
                }
                assert!(text.windows(31).any(|window| window == b"content-type: text/event-stream"));
                stream
            })
            .collect();
        drop(viewers);
    }
    assert_eq!(tidegate.view().listeners[0].name, "in");
    eventually(DEADLINE, "their descriptors are closed", || tidegate.open_files() <= files);
}

#[test]
fn where_a_token_is_wanted_the_page_asks_for_it() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "open sesame\n").unwrap();
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"127.0.0.1:0\", token_file: {} }}\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: secret, address: \"{}\" }}] }}]\n",
        token.display(),
        backend.place()
    ));
    let at = tidegate.stats_port().tcp();
    for path in ["/events", "/series?listener=0&stage=connect", "/stats"] {
        let answer = get(&Place::Tcp(at), path);
        assert_eq!(answer.status, 401, "{path}: {}", answer.text());
    }
    let browser = Browser::start();
    browser.open(&format!("http://{at}/"));
    wait_for(&browser, "!document.getElementById('token-form').hidden");
    assert!(!browser.run("return document.body.innerText.slice(0, 2000)").as_str().unwrap().contains("secret"));
    browser.run(
        "document.getElementById('token').value = 'open sesame'; document.getElementById('token-form').requestSubmit()",
    );
    wait_for(&browser, "document.querySelector('#backends-table tbody button')?.textContent === 'secret'");
    assert!(browser.run("return document.getElementById('token-form').hidden").as_bool().unwrap());
}
