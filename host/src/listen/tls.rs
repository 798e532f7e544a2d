//! How does a connection become private?

use std::{io, time::Duration};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    clock::Clock,
    socket::Socket,
    telemetry::traffic::FailedHandshake,
    tls::{Session, Termination},
};

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the client sent nothing")]
    Silent,
    #[error("the client speaks plain HTTP")]
    Clear(Socket),
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
}

impl OpenError {
    /// What is counted of it.
    pub fn kind(&self) -> FailedHandshake {
        match self {
            Self::Silent => FailedHandshake::Silent,
            Self::Clear(_) => FailedHandshake::Clear,
            Self::Handshake(_) => FailedHandshake::Broken,
        }
    }
}

/// Shakes hands with a client.
pub(super) async fn open(
    mut stream: Socket,
    termination: &Termination,
) -> Result<(TlsStream<Socket>, Session), OpenError> {
    // Looked at before it is taken: once rustls has it, all that it can say to a stranger is an alert.
    let Some(first) = stream.first().await.map_err(OpenError::Handshake)? else {
        return Err(OpenError::Silent);
    };
    // A handshake begins with 22 (RFC 8446, section 5.1), a request with its method.
    if first.is_ascii_alphabetic() {
        return Err(OpenError::Clear(stream));
    }
    let acceptor = TlsAcceptor::from(termination.config().clone());
    let stream = acceptor.accept(stream).await.map_err(OpenError::Handshake)?;
    let session = termination.session(stream.get_ref().1);
    Ok((stream, session))
}

/// Tells a client that speaks HTTP in clear what is spoken here.
pub(super) async fn refuse(mut stream: Socket, clock: &Clock) {
    const LINGER: Duration = Duration::from_secs(2);
    const LINGER_BYTES: u64 = 256 << 10;
    const DOCUMENT: &str = "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\
                            \"detail\":\"this port speaks TLS: use https\"}\n";
    let status = StatusCode::BAD_REQUEST;
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\n\r\n{DOCUMENT}",
        DOCUMENT.len()
    );
    let lingering_close = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Reads what the client has to say, so that the answer is not lost to a reset.
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // A client that is gone does not miss it.
    let _ = clock.within(LINGER, lingering_close).await;
}
