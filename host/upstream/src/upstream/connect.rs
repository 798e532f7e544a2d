//! How is a connection to an endpoint made?

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::client::conn::http1;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::{
    connections::{ConnectionPermit, EndpointStream, Got, Waiter},
    endpoint::Endpoint,
    link::Link,
    reach,
    switched::Switched,
    transport::{Scratch, Sender, SentHead, Transport},
};
use crate::{
    clock::{Clock, Elapsed, TICK},
    config::{Protocol, Reach},
    descriptors,
    drain::Drain,
    proxy_protocol::ProxyHeader,
    tls,
};

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
    /// Whether the proxy itself has too little of something, such as file descriptors.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Connect(error) | Self::Resolve(error) => descriptors::is_shortage(error),
            Self::Shared(error) => error.is_shortage(),
            Self::NotPublic(_)
            | Self::Nameless
            | Self::Tls(_)
            | Self::TimedOut(_)
            | Self::TooMany
            | Self::Handshake(_)
            | Self::Ended => false,
        }
    }

    /// Whether there are as many connections as there may be.
    pub fn is_too_many(&self) -> bool {
        match self {
            Self::TooMany => true,
            Self::Shared(error) => error.is_too_many(),
            Self::Connect(_)
            | Self::Resolve(_)
            | Self::NotPublic(_)
            | Self::Nameless
            | Self::Tls(_)
            | Self::TimedOut(_)
            | Self::Handshake(_)
            | Self::Ended => false,
        }
    }

    /// Whether the endpoint has nothing to do with it.
    pub fn is_own(&self) -> bool {
        self.is_too_many() || self.is_shortage()
    }

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
    stream: EndpointStream,
    drain: &Drain,
    scratch: &Scratch,
) -> Result<(Sender, Rc<RefCell<SentHead>>), ConnectError> {
    let is_counted = stream.is_counted();
    let (transport, sent_head) = Transport::new(stream, scratch.clone());
    let (sender, mut connection) = http1::handshake(transport).await?;
    let known = sent_head.clone();
    drain.spawn_local(async move {
        let driven = poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx).map(Driven::Ended);
            let mut sent_head = known.borrow_mut();
            if polled.is_pending()
                && let Some((upgrade_sender, sender)) =
                    sent_head.handed_over.take_if(|(_, sender)| sender.is_ready())
            {
                return Poll::Ready(Driven::Moves(upgrade_sender, sender));
            }
            if is_counted && polled.is_pending() {
                sent_head.driver = Some(cx.waker().clone());
            }
            polled
        })
        .await;
        match driven {
            // Whoever uses the connection is told of its failure; an idle one may end at any time.
            // Somebody who was to get it is told by the drop, and waits for another.
            Driven::Ended(Err(error)) => tracing::debug!(%error, "upstream connection ended"),
            Driven::Ended(Ok(())) => {
                let upgrade_sender = known.borrow_mut().upgrade_sender.take();
                if let Some(upgrade_sender) = upgrade_sender {
                    let http1::Parts { io, read_buf, .. } = connection.into_parts();
                    let (stream, rest) = io.into_rest();
                    let begun =
                        if rest.is_empty() { read_buf } else { [&read_buf[..], &rest].concat().into() };
                    // Nobody wants it unless the endpoint has agreed to another protocol.
                    let _ = upgrade_sender.send(Switched::alone(stream, begun));
                }
            }
            Driven::Moves(upgrade_sender, sender) => {
                let http1::Parts { io, read_buf, .. } = connection.into_parts();
                drop(sender);
                let (mut stream, rest) = io.into_rest();
                // What has come unasked is no answer to the next request.
                if read_buf.is_empty() && rest.is_empty() && stream.leave().is_ok() {
                    // If whoever waited has gone, it is closed.
                    upgrade_sender.give(Got::Moved(stream));
                }
            }
        }
    });
    Ok((sender, sent_head))
}

/// What becomes of a connection.
enum Driven {
    Ended(hyper::Result<()>),
    /// It goes to somebody on another worker.
    Moves(Waiter, Sender),
}

/// The same as [`dial`]; the connection has the permit, and counts until its socket is closed. While there are no file
/// descriptors left for it, others are asked to close what nobody uses, and it waits, for `limit` at most.
pub(super) async fn dial_patiently(
    endpoint: &Endpoint,
    introduction: Option<ProxyHeader>,
    protocol: Protocol,
    permit: Option<ConnectionPermit>,
    clock: &Clock,
    limit: Duration,
) -> Result<EndpointStream, ConnectError> {
    let began = clock.now();
    loop {
        match dial(endpoint, introduction, protocol).await {
            Err(error) if error.is_shortage() && !clock.has_passed(limit, began) => {
                descriptors::report_shortage();
                clock.pause(TICK).await;
            }
            Err(error) => return Err(error),
            Ok(mut stream) => {
                stream.hold(permit);
                return Ok(stream);
            }
        }
    }
}

/// A connection that `protocol` will be spoken on, or what the endpoint has chosen; after the introduction, where there
/// is to be one.
pub(super) async fn dial(
    endpoint: &Endpoint,
    introduction: Option<ProxyHeader>,
    protocol: Protocol,
) -> Result<EndpointStream, ConnectError> {
    if let Some(path) = endpoint.authority.socket() {
        let mut stream = UnixStream::connect(path).await.map_err(ConnectError::Connect)?;
        descriptors::leave_some(&stream).map_err(ConnectError::Connect)?;
        introduce(&mut stream, introduction).await?;
        return Ok(EndpointStream::Clear(stream.into()));
    }
    let stream = match endpoint.fixed {
        Some(address) => connect_to(address).await,
        None => {
            let port = endpoint.authority.port_u16().unwrap_or(80);
            let addresses: Vec<_> = tokio::net::lookup_host((endpoint.authority.host(), port))
                .await
                .map_err(ConnectError::Resolve)?
                .collect();
            let addresses = allowed(&endpoint.reach, addresses)?;
            connect_to_any(&addresses).await
        }
    };
    let stream = stream.map_err(ConnectError::Connect)?;
    stream.set_nodelay(true).map_err(ConnectError::Connect)?;
    let mut stream = Link::from(stream);
    introduce(&mut stream, introduction).await?;
    if !endpoint.is_https {
        return Ok(EndpointStream::Clear(stream));
    }
    let (tls, name) = endpoint.tls.as_ref().ok_or(ConnectError::Nameless)?;
    let connector = TlsConnector::from(tls.config(protocol).clone());
    // In a box, since a handshake needs more memory than whoever waits for it should keep ready.
    let stream = Box::pin(connector.connect(name.clone(), stream))
        .await
        .map_err(|error| ConnectError::Tls(tls::in_words(error)))?;
    Ok(EndpointStream::Private(Box::new(stream)))
}

/// Connects to the first of the addresses that takes a connection.
async fn connect_to_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect_to(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if descriptors::is_shortage(&error) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Before the endpoint hears of it.
    descriptors::leave_some(&socket)?;
    socket.connect(address).await
}

/// Says whose connection it is, before anything else is said.
async fn introduce<S: AsyncWrite + Unpin>(
    stream: &mut S,
    introduction: Option<ProxyHeader>,
) -> Result<(), ConnectError> {
    let Some(introduction) = introduction else { return Ok(()) };
    stream.write_all(&introduction.write()).await.map_err(ConnectError::Connect)
}

/// Those of the addresses of an endpoint that a connection may be made to: to what was looked at, and not to what the
/// name leads to when it is asked again.
fn allowed(reach: &Reach, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
    let refused = addresses.iter().find(|address| !reach::allows(reach, **address)).copied();
    let Some(refused) = refused else { return Ok(addresses) };
    let allowed: Vec<_> = addresses.into_iter().filter(|address| reach::allows(reach, *address)).collect();
    if allowed.is_empty() { Err(ConnectError::NotPublic(refused.ip())) } else { Ok(allowed) }
}
