//! `tollgate demo`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

use super::{backend::Backend, run};
use crate::{
    config,
    server::{Server, Settings, default_artifacts},
};

const KEY: &str = "test-api-key-123";

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
}

pub(super) async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    let mut endpoints = Vec::new();
    for name in ["one", "two", "three"] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        endpoints.push(format!("\"http://{}\"", listener.local_addr()?));
        tokio::spawn(Backend::new(name.into(), Duration::ZERO, listener)?.serve());
    }
    let text = format!(
        r#"[[listeners]]
address = "{}"

[upstreams.sample]
endpoints = [{}]
balance = "round-robin"
health = {{ path = "/", interval = "1s", timeout = "500ms", unhealthy-after = 3, healthy-after = 1 }}

[[routes]]
upstream = "sample"
plugins = ["api-key"]

[plugins.api-key]
config = {{ header = "x-api-key", keys = {{ demo = "{KEY}" }} }}
"#,
        arguments.listen,
        endpoints.join(", "),
    );
    let (config, source) = config::read_text(&PathBuf::from("demo.toml"), text.clone(), &|_| None)?;
    // A folder that is not there: the demo is about the plugins in the executable.
    let folder = std::env::temp_dir().join("tollgate-demo-has-no-folder");
    let server = Server::start(config, source, Settings { folder, artifacts: default_artifacts() }).await?;
    let address = server.addresses()[0];
    println!(
        "Tollgate listens on http://{address}, in front of three sample backends.

The configuration is:

{}
Try:

  curl -i http://{address}/                              # 401: the plugin api-key wants a key
  curl -i -H 'x-api-key: {KEY}' http://{address}/   # 200: again and again, the backends take turns
  curl -i -H 'x-api-key: {KEY}' http://{address}/status/418
  curl -N -H 'x-api-key: {KEY}' http://{address}/stream

Ctrl-C ends it.",
        text.lines().map(|line| format!("  {line}\n")).collect::<String>(),
    );
    run::until_signalled(&server, None).await
}
