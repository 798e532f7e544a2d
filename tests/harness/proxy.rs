//! A real proxy with a folder of its own.

use std::{
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tollgate::{
    admin, config,
    plugin::Compiler,
    server::{Error, Server, Settings},
    snapshot::Snapshot,
    watch,
};

use crate::{Client, Config, Metrics, Response, log};

/// A proxy on a free port. Stops when dropped; connections that are open then are cut.
pub struct Proxy {
    server: Arc<Server>,
    folder: TempDir,
    loaded: watch::State,
}

/// What stands before the configuration of a test that says nothing else of it.
const PREAMBLE: [(&str, &str); 2] = [("workers", "2"), ("drain-timeout", "\"5s\"")];

/// The listener of tests that say nothing else of it.
const LISTENER: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
"#;

/// A configuration with one route, for all requests, to an upstream `app` of these endpoints.
pub fn route_to(endpoints: &[&str]) -> String {
    Config::to(endpoints).toml()
}

/// A listener on a free port with these settings, to stand at the end of a configuration.
pub fn listener(settings: &str) -> String {
    format!("{LISTENER}{settings}\n")
}

/// The bytes of a plugin in the executable.
pub fn shipped(name: &str) -> Vec<u8> {
    tollgate::plugin::shipped::find(name).expect("the plugin is shipped").to_vec()
}

impl Proxy {
    /// Starts with this configuration; a listener on a free port is added if it has none.
    pub async fn start(config: &(impl Display + ?Sized)) -> Self {
        Self::start_with(config, &[]).await
    }

    /// The same with files in the plugin folder.
    pub async fn start_with(config: &(impl Display + ?Sized), plugins: &[(&str, Vec<u8>)]) -> Self {
        match Self::try_start_with(config, plugins).await {
            Ok(proxy) => proxy,
            Err(error) => panic!("the proxy does not start: {error}"),
        }
    }

    pub async fn try_start_with(
        config: &(impl Display + ?Sized),
        plugins: &[(&str, Vec<u8>)],
    ) -> Result<Self, Error> {
        Self::try_start_in(tempfile::tempdir().expect("a temporary folder can be made"), config, plugins)
            .await
    }

    /// The same in a folder that holds other files already.
    pub async fn try_start_in(
        folder: TempDir,
        config: &(impl Display + ?Sized),
        plugins: &[(&str, Vec<u8>)],
    ) -> Result<Self, Error> {
        log::collect();
        std::fs::create_dir(folder.path().join("plugins")).expect("a folder can be made");
        for (name, component) in plugins {
            std::fs::write(plugin_file(folder.path(), name), component).expect("a file can be written");
        }
        let path = folder.path().join("config.toml");
        std::fs::write(&path, whole(config)).expect("a file can be written");
        let (config, source) = config::read(&path)?;
        // Shared by all tests, as it would be by all starts of a proxy: compiling takes most of a test's time.
        let artifacts = Some(PathBuf::from(concat!(env!("OUT_DIR"), "/artifacts")));
        let settings =
            Settings { folder: folder.path().to_owned(), artifacts, compiler: Compiler::InProcess };
        let loaded = watch::State::before_loading(&source, &config, folder.path());
        let server = Server::start(config, source, settings).await?;
        server.drain().accompany(admin::run(server.clone(), Some(path)));
        Ok(Self { server, folder, loaded })
    }

    /// Has the proxy look after its files, as `tollgate run` does.
    pub fn watch(&self) {
        self.server.drain().spawn(watch::run(self.server.clone(), self.config_path(), self.loaded.clone()));
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// The address of the admin API, which the configuration asks for.
    pub fn admin_address(&self) -> SocketAddr {
        self.server
            .admin()
            .expect("the configuration has the table `admin`")
            .sockets
            .address
            .ip()
            .expect("it is no file")
    }

    /// Asks the admin API: a method and a path, and header lines beside `Host`.
    pub async fn admin(&self, method: &str, path: &str, headers: &[&str]) -> Response {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let mut client = Client::connect(self.admin_address()).await;
        let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n")).await;
        client.response().await
    }

    /// What the admin API says at a path, as JSON.
    pub async fn told(&self, path: &str) -> serde_json::Value {
        let response = self.admin("GET", path, &[]).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// All that is counted.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(self.admin("GET", "/metrics", &[]).await.text())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Where the file of a plugin is, or would be.
    pub fn plugin_path(&self, name: &str) -> PathBuf {
        plugin_file(self.folder.path(), name)
    }

    /// Writes the file of a plugin as a careful deployment does: whole, and then into place.
    pub fn drop_plugin(&self, name: &str, component: &[u8]) {
        let unfinished = self.plugin_path(name).with_extension("tmp");
        std::fs::write(&unfinished, component).expect("a file can be written");
        std::fs::rename(unfinished, self.plugin_path(name)).expect("a file can be renamed");
    }

    /// Writes a configuration, without having it read.
    pub fn write_config(&self, config: &(impl Display + ?Sized)) {
        std::fs::write(self.config_path(), whole(config)).expect("a file can be written");
    }

    /// Writes a configuration and puts it in force.
    pub async fn reload(&self, config: &(impl Display + ?Sized)) -> Result<Arc<Snapshot>, Error> {
        self.write_config(config);
        self.reload_files().await
    }

    /// Reads configuration and plugins again.
    pub async fn reload_files(&self) -> Result<Arc<Snapshot>, Error> {
        tollgate::server::reload(&self.server, self.config_path()).await
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A client that resets its connection when it is dropped.
    pub async fn connect_and_reset(&self) -> Client {
        Client::connect_and_reset(self.address()).await
    }

    /// Sends one request on a connection of its own.
    pub async fn request(&self, request: &str) -> Response {
        let mut client = self.connect().await;
        client.send(request).await;
        client.response().await
    }

    /// GET with these header lines.
    pub async fn get(&self, path: &str, headers: &[&str]) -> Response {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await
    }

    /// Drains and stops.
    pub async fn stop(&self) {
        self.server.stop().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.drain().abort();
        let server = self.server.clone();
        // Workers hold their sockets until they are told.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { server.stop_within(Duration::ZERO).await });
        }
    }
}

fn whole(config: &(impl Display + ?Sized)) -> String {
    let config = config.to_string();
    let listener = if config.contains("[[listeners]]") { "" } else { LISTENER };
    let is_unsaid = |key: &str| !config.lines().any(|line| line.starts_with(key));
    let preamble = PREAMBLE.iter().filter(|(key, _)| is_unsaid(key));
    let preamble: String = preamble.map(|(key, value)| format!("{key} = {value}\n")).collect();
    // Keys of the top level come before any table.
    format!("{preamble}{config}{listener}")
}

fn plugin_file(folder: &Path, name: &str) -> PathBuf {
    folder.join("plugins").join(format!("{name}.wasm"))
}
