//! Where does a socket listen or lead to, and who is at its other end?

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr,
    sync::Arc,
};

/// The address of a socket: `127.0.0.1:8080`, or `unix:/run/app.sock` for one in the file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(Arc<Path>),
}

impl Address {
    /// The longest path of a socket. The system's limit is 107 bytes, and a new one stands beside it for a moment.
    const LONGEST: usize = 96;

    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// Neither an IP address with a port nor `unix:` and an absolute path.
#[derive(Debug)]
pub struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Ip).map_err(|_| NoAddress);
        };
        // It stands in labels, logs and headers.
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        let is_file = path.starts_with('/') && !path.ends_with('/') && path.len() <= Self::LONGEST;
        (is_plain && is_file).then(|| Self::Unix(Path::new(path).into())).ok_or(NoAddress)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// One who has connected. Over a socket of Unix nobody has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller<A> {
    Ip(A),
    Unix,
}

impl Caller<SocketAddr> {
    /// Without the port, and in the form of IPv4 where it is one.
    pub fn client(self) -> Caller<IpAddr> {
        match self {
            Self::Ip(address) => Caller::Ip(address.ip().to_canonical()),
            Self::Unix => Caller::Unix,
        }
    }
}

impl<A> From<A> for Caller<A> {
    fn from(address: A) -> Self {
        Self::Ip(address)
    }
}

impl<A: fmt::Display> fmt::Display for Caller<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_network_or_of_the_file_system() {
        for (text, expected) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("unix:/run/a.sock", Some("unix:/run/a.sock")),
            ("unix:run/a.sock", None),
            ("unix:/run/", None),
            ("unix:", None),
            ("unix:/run/a b", None),
            ("unix:/run/\u{fc}", None),
            ("/run/a.sock", None),
            ("localhost:80", None),
            ("127.0.0.1", None),
        ] {
            let address = text.parse::<Address>().ok().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(Address::LONGEST));
        assert!(long.parse::<Address>().is_err());
    }
}
