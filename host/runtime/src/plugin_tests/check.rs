//! What is every plugin asked?

/// A promise that every plugin is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Hooks,
    Accepted,
    EmptyConfiguration,
    WrongTypes,
    DeepConfiguration,
    HugeConfiguration,
    AbsentHeaders,
    EmptyHeaders,
    LongHeaders,
    ForeignHeaders,
    ManyHeaders,
    OddTargets,
    OddResponses,
    OddEndpoints,
    Soak,
    FlatMemory,
}

impl Check {
    pub const ALL: [Self; 16] = [
        Self::Hooks,
        Self::Accepted,
        Self::EmptyConfiguration,
        Self::WrongTypes,
        Self::DeepConfiguration,
        Self::HugeConfiguration,
        Self::AbsentHeaders,
        Self::EmptyHeaders,
        Self::LongHeaders,
        Self::ForeignHeaders,
        Self::ManyHeaders,
        Self::OddTargets,
        Self::OddResponses,
        Self::OddEndpoints,
        Self::Soak,
        Self::FlatMemory,
    ];

    /// By which it is named in all versions of the battery. C001 is that the component can be loaded at all, which
    /// comes before any of these.
    pub fn id(self) -> &'static str {
        match self {
            Self::Hooks => "C002",
            Self::Accepted => "C003",
            Self::EmptyConfiguration => "C010",
            Self::WrongTypes => "C011",
            Self::DeepConfiguration => "C012",
            Self::HugeConfiguration => "C013",
            Self::AbsentHeaders => "C020",
            Self::EmptyHeaders => "C021",
            Self::LongHeaders => "C022",
            Self::ForeignHeaders => "C023",
            Self::ManyHeaders => "C024",
            Self::OddTargets => "C025",
            Self::OddResponses => "C026",
            Self::OddEndpoints => "C027",
            Self::Soak => "C030",
            Self::FlatMemory => "C031",
        }
    }

    /// The promise.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hooks => "it exports a hook that Tollgate calls",
            Self::Accepted => "it takes the configuration of its tests",
            Self::EmptyConfiguration => "an empty configuration does not trap it",
            Self::WrongTypes => "values of a wrong type are refused",
            Self::DeepConfiguration => "a configuration of a thousand levels does not trap it",
            Self::HugeConfiguration => "a configuration of a mebibyte does not trap it",
            Self::AbsentHeaders => "no hook fails without headers",
            Self::EmptyHeaders => "no hook fails on empty headers",
            Self::LongHeaders => "no hook fails on headers of 64 KiB",
            Self::ForeignHeaders => "no hook fails on headers that are not UTF-8",
            Self::ManyHeaders => "no hook fails on a thousand headers",
            Self::OddTargets => "no hook fails on odd targets, methods and addresses",
            Self::OddResponses => "on-response does not fail on any status",
            Self::OddEndpoints => "pick does not fail on any list of endpoints",
            Self::Soak => "100,000 calls on one instance do not trap",
            Self::FlatMemory => "its memory is flat over them",
        }
    }
}
