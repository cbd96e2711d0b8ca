//! Changes by the dashboard, in a real browser: each is asked about first, and who may not change sees no way to.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::process::Signal;
use tempfile::TempDir;
use tidegate::admin::snapshot_model::BackendStatus;

use crate::dashboard::{assert_accessible, assert_clean, is_hidden, open, screenshots, texts, wait_for};
use crate::support::backend::Backend;
use crate::support::browser::Browser;
use crate::support::client::{Place, connect};
use crate::support::stats::{ADMIN, Answer, ask, backend};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

const TOKEN: &str = "open-sesame";

/// A tidegate with a token, and a browser that has given it.
struct Stage {
    tidegate: Tidegate,
    at: SocketAddr,
    browser: Browser,
    _folder: TempDir,
}

impl Stage {
    /// `pools` are lines of YAML, in which `p` is a pool with that number of addresses in all.
    fn start(pools: &str, hosts: &str, backends: &str) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        let yaml = format!(
            "admin: {{ bind: \"127.0.0.1:0\", token_file: {} }}\n\
             listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n{pools}",
            token.display()
        );
        let launch = Tidegate::with(&yaml);
        let tidegate = if hosts.is_empty() { launch.start() } else { launch.hosts(hosts).start() };
        let at = tidegate.stats_port().tcp();
        let browser = Browser::start();
        browser.open(&format!("http://{at}/"));
        wait_for(&browser, "!document.getElementById('token-form').hidden");
        browser.run(&format!(
            "document.getElementById('token').value = '{TOKEN}'; document.getElementById('token-form').requestSubmit()"
        ));
        wait_for(&browser, &format!("document.getElementById('fact-up').textContent.endsWith('of {backends}')"));
        wait_for(&browser, "document.querySelector('#backends-table .more') !== null");
        // The first requests were without the token, and the browser says so.
        browser.console();
        Stage { tidegate, at, browser, _folder: folder }
    }

    fn backend_status(&self, name: &str) -> BackendStatus {
        let head = format!("Host: {}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n", self.at);
        let answer = ask(&Place::Tcp(self.at), &format!("GET /stats HTTP/1.1\r\n{head}\r\n"));
        backend(&serde_json::from_slice(&answer.body).unwrap(), name).status()
    }

    fn send(&self, method: &str, path: &str) -> Answer {
        let head = format!("Host: {}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n", self.at);
        ask(&Place::Tcp(self.at), &format!("{method} {path} HTTP/1.1\r\n{head}\r\n"))
    }

    /// Presses the button of a row and an entry of its menu; then there is the question.
    fn choose(&self, name: &str, change: &str) {
        self.browser.run(&format!(
            "const rows = [...document.querySelectorAll('#backends-table tbody tr')];
             rows.find((row) => row.querySelector('button')?.textContent === '{name}').querySelector('.more').click();
             document.querySelector('#change-menu [data-change={change}]').click()"
        ));
        wait_for(&self.browser, "document.getElementById('change').open");
    }

    fn confirm(&self) {
        self.browser.run("document.getElementById('change-confirm').click()");
    }

    fn wait_for_closed(&self) {
        wait_for(&self.browser, "!document.getElementById('change').open");
    }

    fn wait_for_word(&self, name: &str, word: &str) {
        wait_for(
            &self.browser,
            &format!(
                "[...document.querySelectorAll('#backends-table tbody tr')].some((row) => \
                 row.querySelector('button')?.textContent === '{name}' && row.querySelector('.word').textContent === '{word}')"
            ),
        );
    }

    fn text(&self, selector: &str) -> String {
        texts(&self.browser, selector).remove(0)
    }

    fn has_sent_changes(&self) -> bool {
        self.browser.requests().iter().any(|url| url.contains("/api/pools"))
    }
}

/// A connection through the balancer, with a byte that came back.
fn echoing(tidegate: &Tidegate) -> TcpStream {
    let mut client = connect(&tidegate.at("in"));
    echo(&mut client);
    client
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_backend_is_drained_and_made_ready_by_the_page() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let stage = Stage::start(
        &format!(
            "pools: [{{ name: p, health: {{ tcp: {{}}, interval: 100ms }}, \
             backends: [{{ name: one, address: \"{}\" }}, {{ name: two, address: \"{}\" }}] }}]\n",
            one.place(),
            two.place()
        ),
        "",
        "2",
    );
    let browser = &stage.browser;
    let mut clients: Vec<TcpStream> = (0..2).map(|_| echoing(&stage.tidegate)).collect();
    wait_for(
        browser,
        "document.querySelectorAll('#backends-table tbody tr:not(.space) td:nth-child(4)')[0].textContent === '1'",
    );
    assert_accessible(browser);

    // By the keyboard alone: the button, the menu, the question, and no.
    browser.run("document.querySelector('#backends-table .more').focus()");
    browser.press("Enter");
    assert!(!is_hidden(browser, "#change-menu"));
    assert_eq!(browser.run("return document.activeElement.textContent"), "Drain…");
    assert_eq!(browser.run("return document.getElementById('change-menu').ariaLabel"), "Change p / one");
    assert_eq!(texts(browser, "#change-menu button:disabled"), ["Ready…"], "it is so already");
    browser.press("ArrowDown");
    assert_eq!(browser.run("return document.activeElement.textContent"), "Maintenance…");
    browser.press("Escape");
    assert!(is_hidden(browser, "#change-menu"));
    assert_eq!(browser.run("return document.activeElement.textContent"), "⋯Change one", "back at the button");
    browser.press("Enter");
    browser.press("Enter");
    wait_for(browser, "document.getElementById('change').open");
    assert_eq!(stage.text("#change-title"), "Drain p / one?");
    assert_eq!(
        stage.text("#change-text"),
        "one gets no new connections. Its health checks go on. Its open connection stays until it ends by itself."
    );
    assert!(is_hidden(browser, "#change-warning") && is_hidden(browser, "#change-weight-field"));
    browser.screenshot(&screenshots("change.png"), false);
    browser.press("Escape");
    stage.wait_for_closed();
    assert_eq!(browser.run("return document.activeElement.textContent"), "⋯Change one");
    assert!(!stage.has_sent_changes(), "nothing was confirmed");
    assert_eq!(stage.backend_status("one"), BackendStatus::Up);

    // And now in earnest.
    stage.choose("one", "drain");
    stage.confirm();
    stage.wait_for_closed();
    assert!(
        stage.text("#change-outcome").ends_with(" pools.p.backends.one.state: ready -> drain"),
        "{}",
        stage.text("#change-outcome")
    );
    stage.wait_for_word("one", "drain");
    assert_eq!(stage.backend_status("one"), BackendStatus::Drain);
    assert_eq!(texts(browser, "#fact-up, #fact-unchecked"), ["1 of 2", "1 drained"]);
    assert_eq!(texts(browser, "#pools .word"), ["1 of 2 up"]);
    assert_eq!(texts(browser, "#news"), ["p / one is drained"]);
    let filtered = |state: &str| {
        browser.run(&format!(
            "const filter = document.getElementById('filter'); filter.value = '{state}'; filter.dispatchEvent(new Event('input'))"
        ));
        texts(browser, "#backends-table tbody .link")
    };
    assert_eq!((filtered("drain"), filtered("up")), (vec!["one".to_owned()], vec!["two".to_owned()]));
    assert_eq!(filtered("all").len(), 2);
    clients.iter_mut().for_each(echo);
    clients.extend((0..4).map(|_| echoing(&stage.tidegate)));
    wait_for(
        browser,
        "[...document.querySelectorAll('#backends-table tbody tr:not(.space)')].map((row) => row.children[1].firstChild.textContent + row.children[3].textContent).sort().join() === 'one1,two5'",
    );
    browser.screenshot(&screenshots("drained.png"), true);

    // On a phone too.
    browser.look("light", 390, 844);
    browser.run("document.querySelector('#backends-table .more').click()");
    let beyond = "const { scrollWidth, clientWidth } = document.documentElement; return scrollWidth - clientWidth";
    assert_eq!(browser.run(beyond), 0);
    let sides = "const { left, right } = document.getElementById('change-menu').getBoundingClientRect();
        return left >= 0 && right <= document.documentElement.clientWidth";
    assert_eq!(browser.run(sides), true);
    browser.screenshot(&screenshots("change-phone.png"), false);
    browser.press("Escape");
    browser.look("light", 1400, 1000);

    stage.choose("two", "maintenance");
    assert_eq!(
        stage.text("#change-warning"),
        "No other backend of pool p takes connections: new clients of the pool will be rejected."
    );
    browser.run("document.getElementById('change-cancel').click()");
    stage.wait_for_closed();

    stage.choose("one", "ready");
    stage.confirm();
    stage.wait_for_word("one", "up");
    assert_eq!(stage.backend_status("one"), BackendStatus::Up);

    stage.choose("one", "weight");
    assert_eq!(browser.run("return document.getElementById('change-weight').value"), "1");
    browser.run("document.getElementById('change-weight').value = '1001'");
    browser.console();
    browser.requests();
    stage.confirm();
    assert!(!stage.has_sent_changes(), "the field says what is wrong");
    browser.run("document.getElementById('change-weight').value = '0'");
    stage.confirm();
    stage.wait_for_closed();
    stage.wait_for_word("one", "weight 0");
    clients.iter_mut().for_each(echo);
    assert_clean_of_changes(&stage);

    // What is refused stays open, with the reason.
    stage.choose("one", "drain");
    assert_eq!(stage.send("DELETE", "/api/pools/p/backends/one").status, 202);
    stage.confirm();
    wait_for(browser, "!document.getElementById('change-error').hidden");
    let error = stage.text("#change-error");
    assert!(error.contains("one") && error.contains("no backend"), "{error}");
    assert_eq!(browser.run("return document.getElementById('change').open"), true);
}

/// Nothing went wrong in the page since its console was read last.
fn assert_clean_of_changes(stage: &Stage) {
    let console = stage.browser.console();
    assert!(console.is_empty(), "{console:?}");
}

#[test]
fn all_addresses_of_a_host_name_change_together() {
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let hosts = [1, 2].map(|host| SocketAddr::new(Ipv4Addr::new(127, 0, 1, host).into(), port));
    let _backends = hosts.map(|address| Backend::named_at(address, "x"));
    let stage = Stage::start(
        &format!("pools: [{{ name: p, backends: [{{ name: db, address: \"two.test:{port}\" }}] }}]\n"),
        "127.0.0.1 localhost\n127.0.1.1 two.test\n127.0.1.2 two.test\n",
        "2",
    );
    let [first, second] = hosts.map(|address| format!("db@{address}"));
    stage.choose(&first, "maintenance");
    assert_eq!(stage.text("#change-title"), "Put into maintenance p / db?");
    assert!(
        stage.text("#change-text").ends_with(" All 2 addresses of db change together."),
        "{}",
        stage.text("#change-text")
    );
    stage.confirm();
    stage.wait_for_word(&first, "maintenance");
    stage.wait_for_word(&second, "maintenance");
    eventually(DEADLINE, "/stats says so", || stage.backend_status(&second) == BackendStatus::Maintenance);
}

#[test]
fn without_a_token_the_page_offers_no_changes() {
    let one = Backend::echo();
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: one, address: \"{}\", state: drain }}] }}]\n",
        one.place()
    ));
    let at = tidegate.stats_port().tcp();
    let browser = Browser::start();
    open(&browser, at, "1");
    assert_eq!(texts(&browser, "#backends-table tbody .word"), ["drain"], "that it is so is shown");
    assert_eq!(browser.run("return document.querySelectorAll('.more').length"), 0);
    assert!(is_hidden(&browser, "#backends-table thead .act") && is_hidden(&browser, "#change-menu"));
    assert_clean(&browser, at);
}

#[test]
fn a_file_that_is_not_in_effect_is_an_alert() {
    let one = Backend::echo();
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: one, address: \"{}\" }}] }}]\n",
        one.place()
    ));
    let at = tidegate.stats_port().tcp();
    let browser = Browser::start();
    open(&browser, at, "1");
    assert!(is_hidden(&browser, "#config"));
    let good = fs::read_to_string(tidegate.config_file()).unwrap();
    fs::write(tidegate.config_file(), good.replace("pool: p", "pool: nowhere")).unwrap();
    tidegate.signal(Signal::HUP);
    // Until the reload, the file has only changed.
    wait_for(&browser, "document.getElementById('config').textContent.includes('refused')");
    let told = texts(&browser, "#config li").remove(0);
    assert!(
        told.starts_with("the configuration file is not in effect: the last reload was refused: ")
            && told.ends_with("there is no pool `nowhere`"),
        "{told}"
    );
    assert!(!is_hidden(&browser, "#config"));
    fs::write(tidegate.config_file(), good).unwrap();
    tidegate.signal(Signal::HUP);
    wait_for(&browser, "document.getElementById('config').hidden");
    assert_clean(&browser, at);
}
