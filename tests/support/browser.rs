//! A real browser: Debian's chromium without a window, driven by its chromedriver (W3C WebDriver, JSON over HTTP).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Place, connect};
use super::process::{Process, bound, require};

/// One browser with one page; dropping it ends it.
pub(crate) struct Browser {
    driver: Process,
    at: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        Browser::start_with(&[])
    }

    /// As [`Browser::start`], with more arguments.
    pub(crate) fn start_with(more: &[&str]) -> Browser {
        require("chromium", "chromium");
        require("chromedriver", "chromium-driver");
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = bound("chromedriver", "TERM");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = Process::start(command, Signal::TERM);
        let mut lines = BufReader::new(driver.child().stdout.take().expect("piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok()
        });
        // It says no more, but what would it do if nobody listened?
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("chromedriver's port")));
        let user_data = format!("--user-data-dir={}", profile.path().display());
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1400,1000",
            &user_data,
        ];
        arguments.extend(more);
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "timeouts": { "script": 60_000 },
        } } });
        let mut browser = Browser { driver, at, session: String::new(), _profile: profile };
        let session = browser.ask("POST", "/session", Some(&capabilities));
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        // What the browser shows by itself is none of the tests'.
        browser.open("about:blank");
        browser.console();
        browser.requests();
        browser
    }

    /// Opens a page, and waits until it and its scripts are loaded.
    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page; what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs the body of an async function in the page; what it resolves to.
    pub(crate) fn run_async(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[0];\
             (async () => {{ {script} }})().then((value) => done({{ value }}), (error) => done({{ error: String(error) }}));"
        );
        let answer = self.command("execute/async", &json!({ "script": script, "args": [] }));
        assert!(answer.get("error").is_none(), "in the page: {}", answer["error"]);
        answer["value"].clone()
    }

    /// A command of the DevTools protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// `light` or `dark`, in a viewport of this size.
    pub(crate) fn look(&self, scheme: &str, width: u32, height: u32) {
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.devtools("Emulation.setEmulatedMedia", &media);
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// A key of the keyboard, such as `Tab`, pressed and released.
    pub(crate) fn press(&self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "End" => 35,
            "ArrowDown" => 40,
            other => panic!("no code of {other}"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code });
            self.devtools("Input.dispatchKeyEvent", &event);
        }
    }

    /// What is seen, or with `whole` all of the page, as a PNG file.
    pub(crate) fn screenshot(&self, file: &Path, whole: bool) {
        let parameters = json!({ "format": "png", "captureBeyondViewport": whole });
        let picture = self.devtools("Page.captureScreenshot", &parameters);
        let bytes = decode_base64(picture["data"].as_str().expect("a picture"));
        assert!(bytes.starts_with(b"\x89PNG"));
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, bytes).expect("write");
    }

    /// What the page wrote to its console and what the browser had to say of it, since the last call.
    pub(crate) fn console(&self) -> Vec<String> {
        let entry = |entry: &Value| format!("{}: {}", entry["level"], entry["message"]);
        self.logs("browser").iter().map(entry).collect()
    }

    /// The address of each request that the browser was about to make for the page, since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        let request = |entry: &Value| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let is_request = event["message"]["method"] == "Network.requestWillBeSent";
            is_request.then(|| event["message"]["params"]["request"]["url"].as_str().map(ToOwned::to_owned))?
        };
        self.logs("performance").iter().filter_map(request).collect()
    }

    fn logs(&self, kind: &str) -> Vec<Value> {
        self.command("se/log", &json!({ "type": kind })).as_array().expect("entries").clone()
    }

    fn command(&self, name: &str, parameters: &Value) -> Value {
        self.ask("POST", &format!("{}/{name}", self.session), Some(parameters))
    }

    /// One exchange with chromedriver, on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, answer) = exchange(self.at, method, path, &body);
        let mut answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert_eq!(status, 200, "{method} {path}: {}", answer["value"]["message"]);
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends the browser, which its driver would leave behind; nothing may panic here.
        if !self.session.is_empty() && !self.driver.has_ended() {
            let (at, session) = (self.at, self.session.clone());
            _ = std::thread::spawn(move || exchange(at, "DELETE", &session, "")).join();
        }
    }
}

/// One HTTP/1.1 exchange: the status, and the body, whose length the answer has to say.
fn exchange(at: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = connect(&Place::Tcp(at));
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("a request");
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line of the head");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next().and_then(|code| code.parse().ok()).expect("a status");
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        } else if line.is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).expect("the body");
    (status, String::from_utf8(answer).expect("text"))
}

/// RFC 4648, 4.
fn decode_base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => panic!("no base64: {other}"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}
