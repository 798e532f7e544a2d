//! On whose behalf is a connection made?
//!
//! What a proxy says at its beginning that knows no other way to name its client: the PROXY protocol, versions 1 and 2
//! ("The PROXY protocol", Willy Tarreau, haproxy.org). Nothing here does I/O.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{FromStr, from_utf8},
};

/// What a header says of the connection that it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    /// It is the sender's own, such as a check of health: LOCAL.
    Own,
    /// It is somebody's of whom nothing is known that would mean anything here: UNKNOWN.
    Unknown,
    /// It is a client's.
    Client {
        source: SocketAddr,
        /// Where the client has connected to.
        destination: SocketAddr,
    },
}

/// Why the bytes that a connection begins with are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("there is no PROXY header")]
    Absent,
    #[error("the PROXY header is not as it should be")]
    Malformed,
    #[error("the PROXY header is too long")]
    TooLong,
}

/// The longest header that is read, in bytes. The protocol has 64 KiB; what senders add to the addresses is short.
pub const LONGEST: usize = 4 << 10;

/// The longest of version 1, its end included.
const LONGEST_LINE: usize = 107;

/// What version 2 begins with. Nothing else does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, command, family and length.
const FIXED: usize = 16;

const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The checksum among what follows the addresses of version 2: its type, and its length.
const CRC32C: (u8, usize) = (0x03, 4);

impl ProxyHeader {
    /// Reads the header that these bytes begin with, and says how long it is. None as long as it is not all there.
    ///
    /// It does not matter in what pieces the bytes come: what is not whole yet and can become a header is no fault.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        const WORD: &[u8] = b"PROXY ";
        let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
        match () {
            () if begins(&SIGNATURE) => read_binary(bytes),
            () if begins(WORD) => read_line(bytes),
            () => Err(Fault::Absent),
        }
    }

    /// The header that says so, in version 2. Addresses of both families become ones of version 6.
    pub fn write(self) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        let (command, addresses) = match self {
            Self::Own => (LOCAL, None),
            Self::Unknown => (PROXY, None),
            Self::Client { source, destination } => (PROXY, Some((source, destination))),
        };
        header.push(command);
        match addresses {
            None => header.extend([UNSPECIFIED, 0, 0]),
            Some((source, destination)) => {
                match (source, destination) {
                    (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                        header.extend([TCP4, 0, 12]);
                        header.extend(source.ip().octets());
                        header.extend(destination.ip().octets());
                    }
                    (source, destination) => {
                        header.extend([TCP6, 0, 36]);
                        header.extend(octets(source));
                        header.extend(octets(destination));
                    }
                }
                header.extend(source.port().to_be_bytes());
                header.extend(destination.port().to_be_bytes());
            }
        }
        header
    }
}

/// The address in the form of version 6.
fn octets(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443`, and CR LF.
fn read_line(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, Fault> {
    let most = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\n', most) else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Fault::TooLong) };
    };
    let line = most[..end].strip_suffix(b"\r").ok_or(Fault::Malformed)?;
    let line = from_utf8(line).map_err(|_| Fault::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let introduction = match words.next() {
        // Whatever else stands in the line is to be ignored.
        Some("UNKNOWN") => return Ok(Some((ProxyHeader::Unknown, end + 1))),
        Some("TCP4") => client::<Ipv4Addr>(&mut words),
        Some("TCP6") => client::<Ipv6Addr>(&mut words),
        _ => None,
    };
    let introduction = introduction.filter(|_| words.next().is_none()).ok_or(Fault::Malformed)?;
    Ok(Some((introduction, end + 1)))
}

/// The addresses of both ends, and their ports.
fn client<'a, A>(words: &mut impl Iterator<Item = &'a str>) -> Option<ProxyHeader>
where
    A: FromStr,
    (A, u16): Into<SocketAddr>,
{
    let mut address = || words.next()?.parse::<A>().ok();
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        // Numbers are written in one way.
        let is_plain =
            word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (source, destination) = ((source, port()?).into(), (destination, port()?).into());
    Some(ProxyHeader::Client { source, destination })
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, Fault> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Ok(None) };
    let [command, family, length @ ..] = &fixed[SIGNATURE.len()..] else { return Err(Fault::Malformed) };
    // Version, family and transport of which nobody has heard are nobody's.
    if !matches!(*command, PROXY | LOCAL) || family >> 4 > 3 || family & 0xf > 2 {
        return Err(Fault::Malformed);
    }
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if FIXED + length > LONGEST {
        return Err(Fault::TooLong);
    }
    let Some(content) = rest.get(..length) else { return Ok(None) };
    let whole = FIXED + length;
    if *command == LOCAL {
        return Ok(Some((ProxyHeader::Own, whole)));
    }
    let size = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let (addresses, more) = content.split_at_checked(size).ok_or(Fault::Malformed)?;
    check(&bytes[..whole], more)?;
    let port = |index: usize| u16::from_be_bytes([addresses[index], addresses[index + 1]]);
    let introduction = match *family {
        TCP4 => {
            let address = |index: usize| Ipv4Addr::from(array(&addresses[index..index + 4]));
            ProxyHeader::Client {
                source: (address(0), port(8)).into(),
                destination: (address(4), port(10)).into(),
            }
        }
        TCP6 => {
            let address = |index: usize| Ipv6Addr::from(array(&addresses[index..index + 16]));
            ProxyHeader::Client {
                source: (address(0), port(32)).into(),
                destination: (address(16), port(34)).into(),
            }
        }
        // Of sockets in another's file system, or of datagrams, there is nothing to be made.
        _ => ProxyHeader::Unknown,
    };
    Ok(Some((introduction, whole)))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|index| bytes[index])
}

/// Walks through what follows the addresses: types, lengths and values. Nothing of it is used but the checksum, which
/// is that of the whole header with zeros in its place.
fn check(whole: &[u8], mut more: &[u8]) -> Result<(), Fault> {
    while !more.is_empty() {
        let [kind, high, low, rest @ ..] = more else { return Err(Fault::Malformed) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = rest.split_at_checked(length).ok_or(Fault::Malformed)?;
        if *kind == CRC32C.0 {
            if length != CRC32C.1 {
                return Err(Fault::Malformed);
            }
            let index = whole.len() - rest.len();
            let zeros = [0; CRC32C.1];
            let sum = crc32c(&[&whole[..index], &zeros, &whole[index + zeros.len()..]]);
            if sum.to_be_bytes() != value {
                return Err(Fault::Malformed);
            }
        }
        more = after;
    }
    Ok(())
}

/// RFC 9260, appendix A. A bit at a time: there is little of it, and once for a connection.
fn crc32c(pieces: &[&[u8]]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bit = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
    let byte = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), bit);
    !pieces.iter().flat_map(|piece| *piece).fold(u32::MAX, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2.
    fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, content].concat()
    }

    const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn a_line_names_the_client() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443", client("192.0.2.1:56324", "198.51.100.2:443")),
            ("PROXY TCP6 2001:db8::1 ::1 0 65535", client("[2001:db8::1]:0", "[::1]:65535")),
            ("PROXY UNKNOWN", ProxyHeader::Unknown),
            ("PROXY UNKNOWN ffff::1 whatever \u{fc}", ProxyHeader::Unknown),
        ] {
            let bytes = format!("{line}\r\nGET / HTTP/1.1\r\n");
            assert_eq!(ProxyHeader::read(bytes.as_bytes()), Ok(Some((expected, line.len() + 2))), "{line}");
            for end in 0..line.len() + 2 {
                assert_eq!(ProxyHeader::read(&bytes.as_bytes()[..end]), Ok(None), "{line} {end}");
            }
        }
    }

    #[test]
    fn a_line_is_written_in_one_way_only() {
        for line in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 ",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3",
            "PROXY TCP4  192.0.2.1 198.51.100.2 1 2",
            "PROXY TCP4 192.0.2.1\t198.51.100.2 1 2",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 2",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 ",
            "PROXY TCP4 ::1 ::1 1 2",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2",
            "PROXY tcp4 192.0.2.1 198.51.100.2 1 2",
            "PROXY UNKNOWNS",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r",
        ] {
            let read = ProxyHeader::read(format!("{line}\r\n").as_bytes());
            assert_eq!(read, Err(Fault::Malformed), "{line}");
        }
        let bare = b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n";
        assert_eq!(ProxyHeader::read(bare), Err(Fault::Malformed));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 16));
        assert_eq!(long.len(), LONGEST_LINE);
        assert!(ProxyHeader::read(long.as_bytes()).is_ok_and(|read| read.is_some()));
        let longer = long.replace("\r\n", "x\r\n");
        assert_eq!(ProxyHeader::read(longer.as_bytes()), Err(Fault::TooLong));
    }

    #[test]
    fn what_is_something_else_is_not_taken_for_a_header() {
        for bytes in [
            "G",
            "GET / HTTP/1.1\r\n",
            "PROXX",
            "proxy TCP4",
            "\r\nGET",
            "\x16\x03\x01",
            "PRI * HTTP/2.0\r\n",
        ] {
            assert_eq!(ProxyHeader::read(bytes.as_bytes()), Err(Fault::Absent), "{bytes}");
        }
        assert_eq!(ProxyHeader::read(b""), Ok(None));
    }

    #[test]
    fn a_header_of_the_second_version_names_the_client() {
        let four = client("192.0.2.1:56324", "198.51.100.2:443");
        let six: Vec<u8> = [&[0x20, 1, 0xd, 0xb8][..], &[0; 27], &[1, 0, 1, 0, 2]].concat();
        let no_op = [0x04, 0, 2, 0, 0];
        for (command, family, content, expected) in [
            (PROXY, TCP4, ADDRESSES.to_vec(), four),
            (PROXY, TCP4, [&ADDRESSES[..], &no_op, &no_op].concat(), four),
            (PROXY, TCP6, six, client("[2001:db8::]:1", "[::1]:2")),
            (PROXY, UNSPECIFIED, Vec::new(), ProxyHeader::Unknown),
            (PROXY, UNSPECIFIED, no_op.to_vec(), ProxyHeader::Unknown),
            (PROXY, 0x12, ADDRESSES.to_vec(), ProxyHeader::Unknown),
            (PROXY, 0x31, vec![b'/'; 216], ProxyHeader::Unknown),
            (LOCAL, UNSPECIFIED, Vec::new(), ProxyHeader::Own),
            (LOCAL, TCP4, ADDRESSES.to_vec(), ProxyHeader::Own),
            (LOCAL, TCP4, b"whatever it is".to_vec(), ProxyHeader::Own),
        ] {
            let header = binary(command, family, &content);
            let bytes = [&header[..], b"GET /"].concat();
            assert_eq!(ProxyHeader::read(&bytes), Ok(Some((expected, header.len()))), "{header:?}");
            for end in 0..header.len() {
                assert_eq!(ProxyHeader::read(&bytes[..end]), Ok(None), "{header:?} {end}");
            }
        }
    }

    #[test]
    fn a_header_of_the_second_version_is_whole_and_means_something() {
        for (command, family, content) in [
            (0x22, TCP4, &ADDRESSES[..]),
            (0x11, TCP4, &ADDRESSES),
            (0x31, TCP4, &ADDRESSES),
            (PROXY, 0x13, &ADDRESSES),
            (PROXY, 0x41, &ADDRESSES),
            (PROXY, TCP4, &ADDRESSES[..11]),
            (PROXY, TCP6, &ADDRESSES),
            (PROXY, 0x31, &ADDRESSES),
            // What follows is cut off.
            (PROXY, UNSPECIFIED, &[4]),
            (PROXY, UNSPECIFIED, &[4, 0]),
            (PROXY, UNSPECIFIED, &[4, 0, 2, 0]),
            // A checksum of another length, and a wrong one.
            (PROXY, UNSPECIFIED, &[3, 0, 1, 0]),
            (PROXY, UNSPECIFIED, &[3, 0, 4, 1, 2, 3, 4]),
        ] {
            let header = binary(command, family, content);
            assert_eq!(ProxyHeader::read(&header), Err(Fault::Malformed), "{header:?}");
        }
        let long = binary(PROXY, UNSPECIFIED, &vec![0; LONGEST - FIXED + 1]);
        assert_eq!(ProxyHeader::read(&long[..FIXED]), Err(Fault::TooLong), "before it has come");
        let long = binary(LOCAL, UNSPECIFIED, &vec![0; LONGEST - FIXED]);
        assert_eq!(ProxyHeader::read(&long), Ok(Some((ProxyHeader::Own, LONGEST))));
    }

    #[test]
    fn a_checksum_is_that_of_the_header() {
        // RFC 9260 refers to Castagnoli; this is the check value that is published for it.
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
        let content = [&ADDRESSES[..], &[4, 0, 1, 7], &[3, 0, 4, 0, 0, 0, 0], &[4, 0, 1, 7]].concat();
        let mut header = binary(PROXY, TCP4, &content);
        let sum = crc32c(&[&header]).to_be_bytes();
        let index = header.len() - 8;
        header[index..index + 4].copy_from_slice(&sum);
        let expected = client("192.0.2.1:56324", "198.51.100.2:443");
        assert_eq!(ProxyHeader::read(&header), Ok(Some((expected, header.len()))));
        // Without its type it is none.
        for index in (FIXED..header.len()).filter(|at| at + 3 != index) {
            let mut damaged = header.clone();
            damaged[index] ^= 1;
            assert_ne!(ProxyHeader::read(&damaged), Ok(Some((expected, header.len()))), "{index}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for introduction in [
            ProxyHeader::Own,
            ProxyHeader::Unknown,
            client("192.0.2.1:56324", "198.51.100.2:443"),
            client("[2001:db8::1]:1", "[2001:db8::2]:2"),
        ] {
            let header = introduction.write();
            assert_eq!(ProxyHeader::read(&header), Ok(Some((introduction, header.len()))));
        }
        let both = client("192.0.2.1:1", "[2001:db8::2]:2").write();
        let read = ProxyHeader::read(&both).unwrap().unwrap().0;
        assert_eq!(read, client("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2"));
    }
}
