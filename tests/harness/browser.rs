//! A real browser, Chromium, driven over the WebDriver protocol (W3C).
//!
//! It takes seconds to start, so a test opens all its pages in one. Where Chromium or its driver is not installed there
//! is no browser, and the test says that it was skipped.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{Client, soon};

/// A browser with one window. Ends when dropped.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    /// Read to its end, so that the driver is never held up by a full pipe.
    _output: tokio::task::JoinHandle<()>,
    process: Child,
    _profile: TempDir,
}

/// Nothing but what is asked for goes over the network, and the sandbox is left out, which root cannot have.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

const DRIVER: &str = "chromedriver";
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

impl Browser {
    /// Starts one. None, said on standard error, where it is not installed.
    pub async fn start(test: &str) -> Option<Self> {
        let (Some(driver), Some(browser)) =
            (installed(DRIVER), BROWSERS.iter().find_map(|name| installed(name)))
        else {
            eprintln!("SKIPPED {test}: {DRIVER} or {} is not installed", BROWSERS.join("/"));
            return None;
        };
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        let mut process = Command::new(driver)
            .arg("--port=0")
            // What Chromium keeps besides its profile goes there as well.
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the driver can be started");
        let output = process.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines();
        let port = soon("the driver to listen", port(&mut lines)).await;
        let output = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let driver = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let user_data = format!("--user-data-dir={}", profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([&*user_data]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": browser, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let created = command(driver, "POST", "/session", &wanted).await;
        let session = created["sessionId"].as_str().expect("a session has an id").to_owned();
        Some(Self { driver, session, _output: output, process, _profile: profile })
    }

    /// Opens a page, and returns when it has loaded.
    pub async fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    /// What this script returns in the page: the body of a function.
    pub async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Runs a script until it returns something other than null and false, and returns that.
    pub async fn until(&self, what: &str, script: &str) -> Value {
        soon(what, async {
            loop {
                match self.run(script).await {
                    Value::Null | Value::Bool(false) => tokio::time::sleep(Duration::from_millis(50)).await,
                    value => return value,
                }
            }
        })
        .await
    }

    /// Types into the element of this id, as a person does, and presses Enter.
    pub async fn enter(&self, id: &str, text: &str) {
        let found =
            self.command("element", &json!({ "using": "css selector", "value": format!("#{id}") })).await;
        let element = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        let element = element.expect("the element is there");
        // U+E007 is Enter (WebDriver, section 17.4.2).
        self.command(&format!("element/{element}/value"), &json!({ "text": format!("{text}\u{e007}") }))
            .await;
    }

    /// The cells of a table of this id, row by row, the head first.
    pub async fn table(&self, id: &str) -> Vec<Vec<String>> {
        let script = format!(
            "return [...document.getElementById({id:?}).rows].map(row => [...row.cells].map(cell => cell.textContent));"
        );
        serde_json::from_value(self.run(&script).await).expect("cells are text")
    }

    /// What has been said on the console since the last question, errors of scripts and of loading among it.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    async fn command(&self, command_path: &str, body: &Value) -> Value {
        command(self.driver, "POST", &format!("/session/{}/{command_path}", self.session), body).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; without that it would outlive the driver. It is asked for without a runtime,
        // which may be ending.
        let ending = || {
            let mut driver = TcpStream::connect_timeout(&self.driver, Duration::from_secs(1))?;
            driver.set_read_timeout(Some(Duration::from_secs(10)))?;
            let (driver_address, session) = (self.driver, &self.session);
            write!(
                driver,
                "DELETE /session/{session} HTTP/1.1\r\nHost: {driver_address}\r\nConnection: close\r\n\r\n"
            )?;
            driver.read_to_end(&mut Vec::new())
        };
        if let Err(error) = ending() {
            eprintln!("the browser may not have ended: {error}");
        }
        let _ = self.process.start_kill();
    }
}

async fn port(lines: &mut Lines<BufReader<ChildStdout>>) -> u16 {
    loop {
        let line = lines.next_line().await.expect("it is text").expect("the driver says its port");
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().expect("a port is a number");
        }
    }
}

async fn command(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut client = Client::connect(driver).await;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {driver}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
    response.json()["value"].take()
}

/// The path of a program.
fn installed(name: &str) -> Option<String> {
    let folders = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())?;
    Some(found.display().to_string())
}
