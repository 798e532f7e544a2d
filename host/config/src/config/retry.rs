//! What an upstream says of requests that are not answered as they should be: `retry`.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Deserializer, de};

use super::{ByteSize, Duration, Share};

/// When and how often a request is sent again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Retry {
    /// How often at most, after the first time.
    pub attempts: u32,
    /// Answers that are not passed on while there is another attempt. 504 stands for no answer in time, too.
    #[serde(deserialize_with = "statuses")]
    pub on: Vec<StatusCode>,
    /// Before the first attempt after the first, at most; twice as long before each further one.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// The share of an upstream's requests that may be sent again.
    pub budget: Share,
    /// So much of a body is kept, so that it can be sent again.
    pub body: ByteSize,
    /// For all attempts together; beyond it 504. No limit if absent.
    pub timeout: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: Vec::new(),
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            budget: Share::new(0.2),
            body: ByteSize::kib(64),
            timeout: None,
        }
    }
}

fn statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StatusCode>, D::Error> {
    struct Status(StatusCode);

    impl<'de> Deserialize<'de> for Status {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;

            impl de::Visitor<'_> for Visitor {
                type Value = Status;

                fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.write_str("a status of an error, from 400 to 599")
                }

                fn visit_i64<E: de::Error>(self, status: i64) -> Result<Status, E> {
                    let status = u16::try_from(status).ok().filter(|status| (400..=599).contains(status));
                    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                    status.map(Status).ok_or_else(|| E::invalid_value(de::Unexpected::Other("number"), &self))
                }
            }

            deserializer.deserialize_any(Visitor)
        }
    }

    let statuses = Vec::<Status>::deserialize(deserializer)?;
    Ok(statuses.into_iter().map(|status| status.0).collect())
}
