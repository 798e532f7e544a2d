//! `tollgate demo`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

use super::{arguments::Usage, backend::Backend, output::say, run};
use crate::{
    address::Address,
    admin, config,
    listen::BindError,
    plugin::Compiler,
    server::{self, Server, Settings, default_artifacts},
    telemetry,
};

const KEY: &str = "test-api-key-123";

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where to listen for TLS; another port if this one is taken
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    listen_tls: SocketAddr,
    /// Where the admin API listens, on a loopback address; another port if this one is taken
    #[arg(long, default_value = "127.0.0.1:9901", value_name = "ADDRESS")]
    admin: SocketAddr,
}

impl DemoArguments {
    /// The addresses, each with the argument that it comes from.
    fn addresses(&self) -> [(&'static str, SocketAddr); 3] {
        [("--listen", self.listen), ("--listen-tls", self.listen_tls), ("--admin", self.admin)]
    }

    /// Refuses what the configuration that is made of it could not be. Of that, whoever starts the demo knows nothing.
    fn check(&self) -> Result<(), Usage> {
        if !self.admin.ip().is_loopback() {
            return Err(Usage(format!(
                "`--admin {}` could be reached from other machines, and the demo asks for no token: choose a loopback \
                 address such as 127.0.0.1:9901",
                self.admin
            )));
        }
        let all = self.addresses();
        for (place, (flag, address)) in all.iter().enumerate() {
            let is_same = |(_, other): &&(&str, SocketAddr)| {
                let (one, two) = (other.ip(), address.ip());
                let overlap = one == two || one.is_unspecified() || two.is_unspecified();
                other.port() == address.port()
                    && address.port() != 0
                    && one.is_ipv4() == two.is_ipv4()
                    && overlap
            };
            if let Some((other, _)) = all[..place].iter().find(is_same) {
                let port = address.port();
                return Err(Usage(format!(
                    "`{other}` and `{flag}` have the same port {port}: give each its own"
                )));
            }
        }
        Ok(())
    }

    /// Why the demo does not start, in terms of its arguments.
    fn explain(&self, error: server::Error) -> anyhow::Error {
        let server::Error::Bind(BindError { address, error, .. }) = error else { return error.into() };
        let is_it = |(_, wanted): &(&str, SocketAddr)| address == Address::Ip(*wanted);
        let flag = self.addresses().into_iter().find(is_it).map_or("--listen", |(flag, _)| flag);
        anyhow::anyhow!("cannot listen on {address}: {error}; choose another address with `{flag} ADDRESS`")
    }
}

pub(super) async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    arguments.check()?;
    let mut endpoints = Vec::new();
    for name in ["one", "two", "three"] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        endpoints.push(format!("\"http://{}\"", listener.local_addr()?));
        let backend = Backend::new(name.into(), Duration::ZERO, listener)?;
        tokio::spawn(async move { backend.serve().await });
    }
    let (admin, listen_tls) = (free(arguments.admin), free(arguments.listen_tls));
    let text = format!(
        r#"[admin]
address = "{admin}"

[[listeners]]
address = "{}"

[[listeners]]
address = "{}"
tls = {{ self-signed = ["localhost", "127.0.0.1"] }}

[upstreams.sample]
endpoints = [{}]
balance = "round-robin"

[[routes]]
upstream = "sample"
plugins = ["api-key"]

[plugins.api-key]
config = {{ header = "x-api-key", keys = {{ demo = "{KEY}" }} }}
"#,
        arguments.listen,
        listen_tls,
        endpoints.join(", "),
    );
    let (config, source) = config::read_text(&PathBuf::from("demo.toml"), text.clone(), &|_| None)?;
    // A folder that is not there: the demo is about the plugins in the executable.
    let folder = std::env::temp_dir().join("tollgate-demo-has-no-folder");
    let server = Server::start(
        config,
        source,
        Settings { folder, artifacts: default_artifacts(), compiler: Compiler::own_executable() },
    )
    .await
    .map_err(|error| arguments.explain(error))?;
    let signals = run::Signals::listen()?;
    let (address, secure) = (server.addresses()[0], server.addresses()[1].port());
    server.drain().accompany(admin::run(server.clone(), None));
    server.drain().accompany(telemetry::announce_losses());
    for (flag, wanted, taken) in
        [("--admin", arguments.admin, admin), ("--listen-tls", arguments.listen_tls, listen_tls)]
    {
        if wanted.port() != 0 && wanted != taken {
            say!("{wanted} is taken, so {taken} is used in its place; {flag} ADDRESS chooses another.\n");
        }
    }
    let snapshot = server.snapshot();
    let certificate = snapshot.terminations.iter().flatten().find_map(|tls| tls.self_signed());
    let trust = certificate.map_or("-k".to_owned(), |path| format!("--cacert '{}'", path.display()));
    say!(
        "Tollgate listens on http://{address} and https://localhost:{secure}, in front of three sample backends.

The configuration is:

{}
Try:

  curl -i http://{address}/                              # 401: the plugin api-key wants a key
  curl -i -H 'x-api-key: {KEY}' http://{address}/   # 200: again and again, the backends take turns
  curl -i -H 'x-api-key: {KEY}' http://{address}/status/418
  curl -N -H 'x-api-key: {KEY}' http://{address}/stream
  curl -i {trust} -H 'x-api-key: {KEY}' https://localhost:{secure}/

What it does, in a browser: http://{admin}/
In a terminal:              tollgate top --admin http://{admin}
One request, step by step:  tollgate explain GET http://{address}/ --admin http://{admin}
For Prometheus:             curl http://{admin}/metrics

Ctrl-C ends it.",
        text.lines().map(|line| format!("  {line}\n")).collect::<String>(),
    );
    signals.serve(&server, None).await
}

/// This address, or one with a port that is free if its own is taken.
fn free(address: SocketAddr) -> SocketAddr {
    match std::net::TcpListener::bind(address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let another = std::net::TcpListener::bind(SocketAddr::new(address.ip(), 0));
            another.and_then(|socket| socket.local_addr()).unwrap_or(address)
        }
        // Port 0 has become one that is free.
        Ok(socket) => socket.local_addr().unwrap_or(address),
        // Whatever else is wrong is for the listener to say.
        Err(_) => address,
    }
}
