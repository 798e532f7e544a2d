//! How is a stored response written down?
//!
//! A mark, the lengths of head and body, the head, its checksum, the body, its checksum. Numbers are little-endian;
//! texts and lists stand behind their length. What is read is trusted in nothing: all of it may be damaged, or be
//! somebody else's.

use std::{
    fs::File,
    io::{self, Read},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    body::StoredBody,
    key::Key,
    policy::{Freshness, Selection, Time},
    stored::{Stored, is_whole},
};

/// Another form gets another mark, and files of this one are then dropped as damaged.
///
/// The second, since what was stored under the first may have been an answer to a request with credentials.
const MARK: &[u8; 8] = b"tollgat2";
/// The mark and both lengths.
const LENGTHS: usize = 20;
const CHECKSUM: usize = 8;
/// The longest head that is read. Fields of responses are limited long before.
const LONGEST_HEAD: usize = 4 << 20;

/// What a file says before the body.
#[derive(Debug)]
pub struct Head {
    pub key: Key,
    pub selection: Selection,
    pub tags: Box<[Box<str>]>,
    status: StatusCode,
    headers: HeaderMap,
    freshness: Freshness,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the file of a stored response is damaged: {0}")]
    Damaged(#[from] Damaged),
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Damaged {
    #[error("not a cache file of this version")]
    Mark,
    #[error("its length is not what it says")]
    Length,
    #[error("checksum mismatch")]
    Checksum,
    #[error("its content makes no sense")]
    Content,
}

impl Head {
    pub fn into_stored(self, body: StoredBody) -> Stored {
        let Self { key: _, selection, tags, status, headers, freshness } = self;
        Stored { status, headers, body, encoded: Default::default(), freshness, selection, tags }
    }
}

/// All that stands before the body.
pub fn head(key: &Key, stored: &Stored) -> Vec<u8> {
    let mut head = Writer(Vec::with_capacity(1024));
    head.bytes(key.as_str().as_bytes());
    head.number(stored.status.as_u16().into());
    head.number(stored.headers.len() as u64);
    for (name, value) in &stored.headers {
        head.bytes(name.as_str().as_bytes());
        head.bytes(value.as_bytes());
    }
    let Freshness {
        lifetime,
        initial_age,
        received,
        always_validates,
        never_stale,
        stale_while_revalidate,
        stale_if_error,
    } = &stored.freshness;
    for number in [*lifetime, *initial_age, received.0, *stale_while_revalidate] {
        head.number(number);
    }
    head.number(u64::from(*always_validates));
    head.number(u64::from(*never_stale));
    head.optional(stale_if_error.map(u64::to_le_bytes).as_ref().map(|bytes| &bytes[..]));
    head.number(stored.selection.iter().count() as u64);
    for (name, value) in stored.selection.iter() {
        head.bytes(name.as_str().as_bytes());
        head.optional(value);
    }
    head.number(stored.tags.len() as u64);
    for tag in &stored.tags {
        head.bytes(tag.as_bytes());
    }
    let mut all = MARK.to_vec();
    all.extend((head.0.len() as u32).to_le_bytes());
    all.extend(stored.body.len().to_le_bytes());
    all.extend(&head.0);
    all.extend(xxh3_64(&all).to_le_bytes());
    all
}

/// What stands behind the body.
pub fn checksum(pieces: &[Bytes]) -> [u8; CHECKSUM] {
    let mut checksum = Xxh3::new();
    for piece in pieces {
        checksum.update(piece);
    }
    checksum.digest().to_le_bytes()
}

/// The head, and the length of the file.
pub fn read_head(mut file: &File) -> Result<(Head, u64), Error> {
    let length = file.metadata()?.len();
    let mut lengths = [0; LENGTHS];
    read_exact(&mut file, &mut lengths)?;
    let (mark, rest) = lengths.split_at(MARK.len());
    if mark != MARK {
        return Err(Damaged::Mark.into());
    }
    let (of_head, of_body) = rest.split_at(4);
    let of_head = of_head.try_into().map(u32::from_le_bytes).map_err(|_| Damaged::Length)? as usize;
    let of_body = of_body.try_into().map(u64::from_le_bytes).map_err(|_| Damaged::Length)?;
    let others = LENGTHS + of_head + 2 * CHECKSUM;
    if of_head > LONGEST_HEAD || of_body.checked_add(others as u64) != Some(length) {
        return Err(Damaged::Length.into());
    }
    let mut all = lengths.to_vec();
    all.resize(LENGTHS + of_head + CHECKSUM, 0);
    read_exact(&mut file, &mut all[LENGTHS..])?;
    let (head, checksum) = all.split_at(LENGTHS + of_head);
    if checksum != xxh3_64(head).to_le_bytes() {
        return Err(Damaged::Checksum.into());
    }
    let head = Reader(&head[LENGTHS..]).head().ok_or(Damaged::Content)?;
    Ok((head, length))
}

/// All of it.
pub fn read(mut file: File) -> Result<(Head, StoredBody), Error> {
    let (head, _) = read_head(&file)?;
    let mut rest = Vec::new();
    // The length was compared with what the file says.
    file.read_to_end(&mut rest)?;
    let Some(end) = rest.len().checked_sub(CHECKSUM) else { return Err(Damaged::Length.into()) };
    if rest[end..] != xxh3_64(&rest[..end]).to_le_bytes() {
        return Err(Damaged::Checksum.into());
    }
    if !is_whole(&head.headers, end as u64) {
        return Err(Damaged::Content.into());
    }
    let body = Bytes::from(rest).slice(..end);
    let pieces = if body.is_empty() { Vec::new() } else { vec![body] };
    Ok((head, StoredBody::new(pieces)))
}

/// A file that ends too early is damaged; all else is the disk's business.
fn read_exact(file: &mut &File, into: &mut [u8]) -> Result<(), Error> {
    file.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Damaged::Length.into(),
        _ => error.into(),
    })
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        if let Some(bytes) = bytes {
            self.bytes(bytes);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn head(&mut self) -> Option<Head> {
        let key = Key::restored(self.text()?);
        let status = StatusCode::from_u16(self.number()?.try_into().ok()?).ok()?;
        let mut headers = HeaderMap::new();
        for _ in 0..self.number()? {
            let name = HeaderName::from_bytes(self.bytes()?).ok()?;
            headers.try_append(name, HeaderValue::from_bytes(self.bytes()?).ok()?).ok()?;
        }
        let [lifetime, initial_age, received, stale_while_revalidate] =
            [self.number()?, self.number()?, self.number()?, self.number()?];
        let freshness = Freshness {
            lifetime,
            initial_age,
            received: Time(received),
            stale_while_revalidate,
            always_validates: self.number()? != 0,
            never_stale: self.number()? != 0,
            stale_if_error: match self.optional()? {
                Some(bytes) => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
                None => None,
            },
        };
        let mut selection = Vec::new();
        for _ in 0..self.number()? {
            let name = HeaderName::from_bytes(self.bytes()?).ok()?;
            selection.push((name, self.optional()?.map(<[u8]>::to_vec)));
        }
        let mut tags = Vec::new();
        for _ in 0..self.number()? {
            tags.push(self.text()?.into_boxed_str());
        }
        let selection = Selection::restored(selection.into_iter());
        self.0.is_empty().then(|| Head { key, selection, tags: tags.into(), status, headers, freshness })
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?.try_into().ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    #[expect(clippy::option_option, reason = "nothing and nonsense are not the same")]
    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        if self.number()? == 0 { Some(None) } else { self.bytes().map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;
    use crate::cache::policy::Vary;

    fn response() -> Stored {
        let headers = HeaderMap::from_iter(
            [("vary", "accept"), ("x-a", "1"), ("etag", "\"a\"")]
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        let request = HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static("text/html"))]);
        Stored {
            status: StatusCode::NOT_FOUND,
            selection: Vary::of(&headers).unwrap().selection(&request),
            headers,
            body: StoredBody::new(vec![Bytes::from_static(b"one"), Bytes::from(vec![7; 70_000])]),
            encoded: Default::default(),
            freshness: Freshness {
                lifetime: 1,
                initial_age: 2,
                received: Time(3),
                always_validates: true,
                never_stale: false,
                stale_while_revalidate: 4,
                stale_if_error: Some(5),
            },
            tags: ["a".into(), "b".into()].into(),
        }
    }

    fn key() -> Key {
        Key::restored("http://h/\napp".to_owned())
    }

    fn written(stored: &Stored) -> Vec<u8> {
        let body = stored.body.pieces().concat();
        [&head(&key(), stored)[..], &body, &checksum(stored.body.pieces())].concat()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn what_was_written_is_read() {
        let stored = response();
        let (head, body) = read(file(&written(&stored))).unwrap();
        assert_eq!(head.key, key());
        let again = head.into_stored(body);
        assert_eq!(
            (again.status, &again.headers, &again.freshness),
            (stored.status, &stored.headers, &stored.freshness)
        );
        assert_eq!((&again.selection, &again.tags), (&stored.selection, &stored.tags));
        assert_eq!(again.body.pieces().concat(), stored.body.pieces().concat());
        let empty = Stored { body: StoredBody::default(), ..stored };
        assert!(read(file(&written(&empty))).unwrap().1.is_empty());
    }

    #[test]
    fn what_is_not_as_long_as_announced_is_not_read() {
        let mut stored = Stored { body: StoredBody::new(vec![Bytes::from_static(b"body")]), ..response() };
        for (length, expected) in [("4", true), ("10", false)] {
            stored.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static(length));
            assert_eq!(read(file(&written(&stored))).is_ok(), expected, "{length}");
        }
    }

    #[test]
    fn what_is_damaged_is_not() {
        let whole =
            written(&Stored { body: StoredBody::new(vec![Bytes::from_static(b"body")]), ..response() });
        for length in 0..whole.len() {
            assert!(read(file(&whole[..length])).is_err(), "the first {length} bytes");
        }
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0x10;
            assert!(read(file(&damaged)).is_err(), "byte {index}");
        }
        assert!(read(file(&[&whole[..], b"x"].concat())).is_err());
        assert!(read(file(&[0xff; 100])).is_err());
    }
}
