//! What can go wrong with a plugin that was loaded?

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    time::Duration,
};

use super::room::NoRoom;

/// Why a change was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Edit {
    #[error("is not a header name")]
    InvalidName,
    #[error("has an invalid value")]
    InvalidValue,
    #[error("is not for plugins to change")]
    Forbidden,
    #[error("is more than plugins may add")]
    TooLarge,
}

/// Why an answer of a plugin cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReply {
    #[error("the status {0} is not one from 200 to 599")]
    Status(u16),
    #[error("the header `{name}` {reason}")]
    Header { name: String, reason: Edit },
}

/// Why a call did not bring a verdict.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("ran longer than {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("wanted more than {} of memory", crate::config::ByteSize::bytes(*.0))]
    Memory(usize),
    #[error("wanted more memory, and all its instances together may have {}", crate::config::ByteSize::bytes(*.0))]
    MemoryInAll(usize),
    #[error(
        "has made more than {} of replies and bodies that are not sent yet, which is all that `limits.unsent` lets it",
        crate::config::ByteSize::bytes(*.0)
    )]
    Unsent(usize),
    #[error("trapped: {0}")]
    Trap(Trap),
    #[error("made an answer that cannot be sent: {0}")]
    InvalidReply(#[from] InvalidReply),
    #[error("sends requests to the upstream `{0}`, which is not configured")]
    UnknownUpstream(String),
    #[error(
        "sends requests to the upstream `{0}`, which it has not been granted: write grants = {{ upstreams = [\"{0}\"] }} in its \
         table"
    )]
    UpstreamNotGranted(String),
    #[error("could not be started again: {0}")]
    Start(#[from] Box<StartError>),
    #[error("has as many requests in hand as it has instances ({0})")]
    Busy(u32),
    #[error("is not asked for a while, since it keeps failing or takes more than its share of the time")]
    Broken,
}

/// Why a call ended before it returned.
#[derive(Debug, Default)]
pub struct Trap {
    /// What the code did that WebAssembly has a name for.
    code: Option<wasmtime::Trap>,
    cause: String,
    /// What the plugin has printed of it, in one line.
    printed: Option<String>,
}

impl Trap {
    pub(super) fn new(error: &wasmtime::Error) -> Self {
        let code = error.downcast_ref().copied();
        Self { code, cause: error.root_cause().to_string(), printed: None }
    }

    pub(super) fn with_printed(self, printed: Option<String>) -> Self {
        Self { printed, ..self }
    }
}

impl std::fmt::Display for Trap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cause, printed, .. } = self;
        match printed {
            Some(printed) => write!(formatter, "{cause} ({printed})"),
            None => formatter.write_str(cause),
        }
    }
}

impl CallError {
    /// What tells failures apart of which the log says the same. There are few, however much the plugin has a hand in the words
    /// of the error.
    pub fn kind(&self) -> u64 {
        let code = match self {
            Self::Trap(trap) => trap.code.map(|code| code as u8),
            _ => None,
        };
        let mut hasher = DefaultHasher::new();
        (discriminant(self), code).hash(&mut hasher);
        hasher.finish()
    }

    /// Takes what the plugin has printed of its end out of the error, for whoever is not to show it.
    pub fn take_printed(&mut self) -> Option<String> {
        match self {
            Self::Trap(trap) => trap.printed.take(),
            _ => None,
        }
    }
}

/// Why an instance could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("refuses its configuration: {0}")]
    Refused(String),
    #[error("fails while it is configured: {0}")]
    Configure(CallError),
    #[error("fails while it starts: {0}")]
    Begin(CallError),
    #[error("cannot be instantiated")]
    Instantiate(#[source] wasmtime::Error),
    #[error("cannot have an instance: {0}")]
    NoRoom(#[from] NoRoom),
    #[error("did not have all of its instances in time")]
    NoTime,
}

impl StartError {
    /// Whether it is the machine that has no place for an instance, and not the plugin's fault.
    pub fn is_environments(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Configure(_) | Self::Begin(_) => false,
            Self::NoRoom(_) | Self::NoTime => true,
            Self::Instantiate(error) => {
                error.is::<wasmtime::PoolConcurrencyLimitError>()
                    || error.is::<std::io::Error>()
                    || error.is::<rustix::io::Errno>()
            }
        }
    }
}
