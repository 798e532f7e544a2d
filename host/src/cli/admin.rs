//! What does the admin API of a running proxy say?

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::{Body, to_bytes};
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Whom a command asks.
#[derive(Debug, Args)]
pub(super) struct AdminArguments {
    /// Where the admin API of the proxy is; TOLLGATE_ADMIN of the environment if absent, or else http://127.0.0.1:9901
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// What the admin API wants to be shown; TOLLGATE_ADMIN_TOKEN of the environment if absent
    #[arg(long)]
    token: Option<String>,
}

impl AdminArguments {
    pub fn open(self) -> anyhow::Result<Admin> {
        let own = std::env::var("TOLLGATE_ADMIN").ok().filter(|url| !url.is_empty());
        Admin::new(self.admin.or(own).as_deref().unwrap_or(Self::USUAL), self.token.as_deref())
    }

    /// The address in the examples of the documentation.
    const USUAL: &str = "http://127.0.0.1:9901";
}

/// What may be wrong with who answers.
const NOT_IT: &str =
    "it may be another server, such as a listener of the proxy; `--admin` says where the admin API is";

/// Refuses an answer that holds none of what the admin API always says: somebody else has answered.
pub(super) fn expect(answer: &Value, key: &str, admin: &Admin) -> anyhow::Result<()> {
    anyhow::ensure!(
        !answer[key].is_null(),
        "what answers on {} is not the admin API of Tollgate: {NOT_IT}",
        admin.address()
    );
    Ok(())
}

/// A name as a segment of a path: what is not unreserved (RFC 3986, section 2.3) is percent-encoded.
pub(super) fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(encode).collect()
}

/// An admin API that is asked.
#[derive(Debug)]
pub(super) struct Admin {
    authority: String,
    host: String,
    credentials: Option<HeaderValue>,
    /// How long an answer may take.
    patience: Duration,
}

impl Admin {
    /// How long an answer may take, unless more is known.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How long it may be.
    const LARGEST: usize = 64 << 20;

    /// The one at this URL. What it wants to be shown is `token`, or stands in the environment.
    pub fn new(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let uri: Uri =
            url.parse().with_context(|| format!("`{url}` is not a URL such as http://127.0.0.1:9901"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("`{url}` is not a URL such as http://127.0.0.1:9901");
        };
        let port = authority.port_u16().unwrap_or(80);
        let own = std::env::var("TOLLGATE_ADMIN_TOKEN").ok();
        let credentials = token.or(own.as_deref()).map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        let credentials = credentials.transpose().context("a token is of visible ASCII characters")?;
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            host: authority.to_string(),
            credentials,
            patience: Self::PATIENCE,
        })
    }

    /// The same with another limit on how long an answer may take.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.authority
    }

    /// What it says at a path.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// What it answers to a request.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = tokio::time::timeout(self.patience, self.exchange(method, path, body)).await;
        answer
            .unwrap_or_else(|_| bail!("no answer in time"))
            .with_context(|| format!("cannot ask the admin API on {}", self.authority))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let stream = TcpStream::connect(&self.authority).await.context(
            "nobody is there: `--admin`, or TOLLGATE_ADMIN in the environment, says where it is, as the table `admin` in the configuration of the proxy does",
        )?;
        let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.host);
        if let Some(credentials) = &self.credentials {
            request = request.header(header::AUTHORIZATION, credentials);
        }
        let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = to_bytes(Body::new(body), Self::LARGEST).await?;
            // With this the connection ends.
            drop(sender);
            anyhow::Ok((head.status, body))
        };
        let (answer, _) = tokio::join!(answer, connection);
        match answer? {
            (StatusCode::OK, body) => serde_json::from_slice(&body)
                .with_context(|| format!("what it answers to {path} is not JSON: {NOT_IT}")),
            (StatusCode::UNAUTHORIZED, _) => bail!("it wants a token: give it with --token; or {NOT_IT}"),
            (status, body) => {
                let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
                match problem["detail"].as_str() {
                    Some(detail) => bail!("it answers {status} to {path}: {detail}"),
                    None => bail!("it answers {status} to {path}: {NOT_IT}"),
                }
            }
        }
    }
}
