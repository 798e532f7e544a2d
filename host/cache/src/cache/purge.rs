//! Which stored responses does an operator mean?

use super::key::Key;

/// Which stored responses are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge<'a> {
    All,
    /// Those with this URL.
    Url(&'a str),
    /// Those whose URL begins so.
    Prefix(&'a str),
    Tag(&'a str),
}

impl Purge<'_> {
    pub(super) fn may_mean(self, key: &Key) -> bool {
        match self {
            Self::All | Self::Tag(_) => true,
            Self::Url(url) => key.url() == url,
            Self::Prefix(prefix) => key.url().starts_with(prefix),
        }
    }

    /// Whether it means what has these tags, of a key that it may mean.
    pub(super) fn means(self, tags: &[Box<str>]) -> bool {
        match self {
            Self::All | Self::Url(_) | Self::Prefix(_) => true,
            Self::Tag(tag) => tags.iter().any(|known| **known == *tag),
        }
    }
}
