//! Over which socket is an endpoint reached, and what of what was written has arrived there?
//!
//! A [`Link`] belongs to the runtime of one worker at a time. It can leave that and arrive at another's, also below a
//! TLS session. It holds the permit of its connection, so that a connection counts until its socket is closed, whoever
//! has it: hyper's tasks keep a socket for longer than what drives the connection.

use std::{
    io::{self, IoSlice},
    net,
    os::unix::net as unix_net,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connected socket. `P` is the permit to have it.
#[derive(Debug)]
pub(super) struct Link<P> {
    socket: Socket,
    /// Bytes that the kernel has taken.
    given: u64,
    /// Where connections are limited. Below `socket`, since fields are dropped in this order: the socket is closed before
    /// another may be opened in its place.
    permit: Option<P>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// On its way from one worker to another.
    Moving(Moving),
    /// It could not be taken off its worker, and is closed.
    Lost,
}

#[derive(Debug)]
enum Moving {
    Tcp(net::TcpStream),
    Unix(unix_net::UnixStream),
}

impl<P> From<TcpStream> for Link<P> {
    fn from(stream: TcpStream) -> Self {
        Self { socket: Socket::Tcp(stream), given: 0, permit: None }
    }
}

impl<P> From<UnixStream> for Link<P> {
    fn from(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), given: 0, permit: None }
    }
}

impl<P> Link<P> {
    /// Has the connection count until its socket is closed.
    pub fn hold(&mut self, permit: Option<P>) {
        self.permit = permit;
    }

    /// Whether it counts.
    pub fn is_counted(&self) -> bool {
        self.permit.is_some()
    }

    /// Bytes that were ever given to the kernel.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Bytes that were written and that the other end has not acknowledged (`SIOCOUTQ` in tcp(7)). None where that is
    /// not known.
    pub fn unacknowledged(&self) -> Option<u64> {
        match &self.socket {
            Socket::Tcp(stream) => outstanding(stream),
            // There the count is of memory and not of bytes.
            Socket::Unix(_) | Socket::Moving(_) | Socket::Lost => None,
        }
    }

    /// Takes it off the runtime of this worker.
    pub fn leave(&mut self) -> io::Result<()> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Tcp(stream) => Socket::Moving(Moving::Tcp(stream.into_std()?)),
            Socket::Unix(stream) => Socket::Moving(Moving::Unix(stream.into_std()?)),
            other @ (Socket::Moving(_) | Socket::Lost) => other,
        };
        Ok(())
    }

    /// Puts it on the runtime of this worker.
    pub fn arrive(&mut self) -> io::Result<()> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Moving(Moving::Tcp(stream)) => Socket::Tcp(TcpStream::from_std(stream)?),
            Socket::Moving(Moving::Unix(stream)) => Socket::Unix(UnixStream::from_std(stream)?),
            other @ (Socket::Tcp(_) | Socket::Unix(_) | Socket::Lost) => other,
        };
        Ok(())
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &written {
            self.given += *written as u64;
        }
        written
    }
}

/// Other architectures have other numbers for it.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
fn outstanding(stream: &TcpStream) -> Option<u64> {
    /// `SIOCOUTQ`, as in asm-generic/ioctls.h.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: this request writes one `int` to where its argument points, and nothing else.
    let count =
        unsafe { rustix::ioctl::ioctl(stream, rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new()) };
    count.ok().and_then(|count| u64::try_from(count).ok())
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
fn outstanding(_: &TcpStream) -> Option<u64> {
    None
}

fn away<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl<P: Unpin> AsyncRead for Link<P> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Moving(_) | Socket::Lost => away(),
        }
    }
}

impl<P: Unpin> AsyncWrite for Link<P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        let written = match &mut link.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Moving(_) | Socket::Lost => away(),
        };
        link.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        let written = match &mut link.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Socket::Moving(_) | Socket::Lost => away(),
        };
        link.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has it already.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Moving(_) | Socket::Lost => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_was_closed_before_has_acknowledged_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for is_read_first in [false, true] {
            let mut link =
                Link::<()>::from(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (mut endpoint, _) = listener.accept().await.unwrap();
            link.write_all(b"first").await.unwrap();
            endpoint.read_exact(&mut [0; 5]).await.unwrap();
            endpoint.write_all(b"x").await.unwrap();
            link.read_exact(&mut [0]).await.unwrap();
            let before = link.given();
            if !is_read_first {
                drop(endpoint);
                link.write_all(b"request").await.unwrap();
            } else {
                link.write_all(b"request").await.unwrap();
                endpoint.read_exact(&mut [0; 7]).await.unwrap();
                drop(endpoint);
            }
            assert_eq!(link.read(&mut [0]).await.unwrap(), 0);
            let request = link.given() - before;
            assert_eq!(request, 7);
            assert_eq!(link.unacknowledged().unwrap() >= request, !is_read_first);
        }
    }

    #[test]
    fn a_link_moves_to_another_runtime() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut link = runtime().block_on(async {
            let mut link = Link::<()>::from(TcpStream::connect(address).await.unwrap());
            link.write_all(b"one").await.unwrap();
            link.leave().unwrap();
            assert!(link.write_all(b"lost").await.is_err(), "it is on no runtime");
            link
        });
        runtime().block_on(async {
            link.arrive().unwrap();
            link.write_all(b"two").await.unwrap();
            link.shutdown().await.unwrap();
        });
        let mut all = String::new();
        io::Read::read_to_string(&mut listener.accept().unwrap().0, &mut all).unwrap();
        assert_eq!(all, "onetwo");
    }
}
