//! How is a connection to an endpoint made?

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use hyper::client::conn::http1;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::{
    Endpoint, Permit, reach,
    switched::Switched,
    transport::{Memory, Scratch, Stream, Transport},
};
use crate::{
    body::RequestBody, clock::Elapsed, config::Protocol, drain::Drain, proxy_protocol::Introduction,
};

/// Sends requests over one connection, one at a time.
pub(super) type Sender = http1::SendRequest<RequestBody>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot resolve the name")]
    Resolve(#[source] io::Error),
    #[error("the name leads to {0}, which not anybody can reach")]
    NotPublic(IpAddr),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("it has no name to ask for by TLS")]
    Nameless,
    #[error("no TLS connection")]
    Tls(#[source] io::Error),
    #[error("connecting took too long")]
    TimedOut(#[from] Elapsed),
    #[error("there are as many connections as there may be")]
    TooMany,
    #[error("cannot speak HTTP")]
    Handshake(#[from] hyper::Error),
    #[error("the connection ended before it could be used")]
    Ended,
    /// With others, this request waited for a connection that is not there.
    #[error("the connection that was waited for is not there")]
    Shared(#[source] Arc<ConnectError>),
}

impl ConnectError {
    pub fn is_time_out(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Shared(error) => error.is_time_out(),
            Self::Resolve(_)
            | Self::NotPublic(_)
            | Self::Connect(_)
            | Self::Nameless
            | Self::Tls(_)
            | Self::TooMany
            | Self::Handshake(_)
            | Self::Ended => false,
        }
    }
}

/// Spawns what drives a connection on which HTTP/1 is spoken.
pub(super) async fn drive(
    stream: Stream,
    drain: &Drain,
    scratch: &Scratch,
    permit: Option<Permit>,
) -> Result<(Sender, Rc<RefCell<Memory>>), ConnectError> {
    let (transport, memory) = Transport::new(stream, scratch.clone());
    let (sender, mut connection) = http1::handshake(transport).await?;
    let known = memory.clone();
    drain.spawn_local(async move {
        // It counts as long as it is there, whoever has it.
        let permit = permit;
        // Whoever uses the connection is told of its failure; an idle one may end at any time.
        if let Err(error) = (&mut connection).await {
            tracing::debug!(%error, "upstream connection ended");
            return;
        }
        if let Some(heir) = known.borrow_mut().heir.take() {
            let http1::Parts { io, read_buf, .. } = connection.into_parts();
            // Nobody wants it unless the endpoint has agreed to another protocol.
            let _ = heir.send(Switched::alone(io.into_stream(), read_buf, permit));
        }
    });
    Ok((sender, memory))
}

/// A connection that `protocol` will be spoken on, or what the endpoint has chosen; after the introduction, where there
/// is to be one.
pub(super) async fn dial(
    endpoint: &Endpoint,
    introduction: Option<Introduction>,
    protocol: Protocol,
) -> Result<Stream, ConnectError> {
    if let Some(path) = endpoint.authority.socket() {
        let mut stream = UnixStream::connect(path).await.map_err(ConnectError::Connect)?;
        introduce(&mut stream, introduction).await?;
        return Ok(Stream::Clear(stream.into()));
    }
    let stream = match endpoint.fixed {
        Some(address) => TcpStream::connect(address).await,
        None => {
            let port = endpoint.authority.port_u16().unwrap_or(80);
            let addresses: Vec<_> = tokio::net::lookup_host((endpoint.authority.host(), port))
                .await
                .map_err(ConnectError::Resolve)?
                .collect();
            let addresses = if endpoint.is_guarded { public(addresses)? } else { addresses };
            TcpStream::connect(&addresses[..]).await
        }
    };
    let mut stream = stream.map_err(ConnectError::Connect)?;
    stream.set_nodelay(true).map_err(ConnectError::Connect)?;
    introduce(&mut stream, introduction).await?;
    if !endpoint.is_https {
        return Ok(Stream::Clear(stream.into()));
    }
    let (tls, name) = endpoint.tls.as_ref().ok_or(ConnectError::Nameless)?;
    let connector = TlsConnector::from(tls.config(protocol).clone());
    // In a box, since a handshake needs more memory than whoever waits for it should keep ready.
    let stream = Box::pin(connector.connect(name.clone(), stream)).await.map_err(ConnectError::Tls)?;
    Ok(Stream::Private(Box::new(stream)))
}

/// Says whose connection it is, before anything else is said.
async fn introduce<S: AsyncWrite + Unpin>(
    stream: &mut S,
    introduction: Option<Introduction>,
) -> Result<(), ConnectError> {
    let Some(introduction) = introduction else { return Ok(()) };
    stream.write_all(&introduction.write()).await.map_err(ConnectError::Connect)
}

/// Those of the addresses of a guarded endpoint that a connection may be made to: to what was looked at, and not to
/// what the name leads to when it is asked again.
fn public(addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
    let refused = addresses.iter().map(SocketAddr::ip).find(|address| !reach::is_public(*address));
    let allowed: Vec<_> = addresses.into_iter().filter(|address| reach::is_public(address.ip())).collect();
    match refused {
        Some(address) if allowed.is_empty() => Err(ConnectError::NotPublic(address)),
        _ => Ok(allowed),
    }
}
