//! What an upstream says of the health of its endpoints: `health` and `outlier`.

use std::{collections::BTreeMap, fmt, num::NonZero};

use http::{HeaderName, HeaderValue, Method, StatusCode, uri::PathAndQuery};
use serde::{Deserialize, Deserializer, de};

use super::{Duration, Share, shape::written};

/// How endpoints are checked, whether they get requests or not.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Health {
    pub protocol: CheckProtocol,
    #[serde(deserialize_with = "path")]
    pub path: PathAndQuery,
    #[serde(deserialize_with = "method")]
    pub method: Method,
    /// What the check says in `Host`; the endpoint's own address if absent.
    #[serde(deserialize_with = "host")]
    pub host: Option<HeaderValue>,
    #[serde(deserialize_with = "headers")]
    pub headers: BTreeMap<Name, HeaderValue>,
    /// An answer with any other status is a failure.
    pub statuses: Vec<Statuses>,
    /// What a check by gRPC asks for; the server as a whole if empty.
    #[serde(deserialize_with = "service")]
    pub service: String,
    /// What the body of the answer must hold.
    pub body: Option<String>,
    /// Between the beginnings of two checks of an endpoint, give or take a tenth.
    pub interval: Duration,
    /// For one check, the connection included.
    pub timeout: Duration,
    /// Failures in a row that make a healthy endpoint unreachable.
    pub unhealthy_after: NonZero<u32>,
    /// Successes in a row that make an unreachable endpoint healthy.
    pub healthy_after: NonZero<u32>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            protocol: CheckProtocol::default(),
            path: PathAndQuery::from_static("/"),
            method: Method::GET,
            host: None,
            headers: BTreeMap::new(),
            statuses: vec![Statuses { first: 200, last: 299 }],
            service: String::new(),
            body: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            unhealthy_after: NonZero::new(3).expect("3 is not 0"),
            healthy_after: NonZero::<u32>::MIN,
        }
    }
}

/// What a check speaks with an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckProtocol {
    /// A request of its own.
    #[default]
    Http,
    /// A connection that can be made is enough.
    Tcp,
    /// A call of `grpc.health.v1.Health/Check`, over HTTP/2.
    Grpc,
}

/// Where endpoints tell their load, beside the header of their responses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoadAddress {
    #[serde(deserialize_with = "path")]
    pub path: PathAndQuery,
    /// The number in the answer (RFC 6901); if absent the answer is a report of ORCA.
    #[serde(default, deserialize_with = "pointer")]
    pub pointer: Option<String>,
    /// Between two questions to an endpoint.
    #[serde(default = "one_second", deserialize_with = "load_interval")]
    pub interval: Duration,
    /// For one question, the connection included.
    #[serde(default = "half_a_second")]
    pub timeout: Duration,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn half_a_second() -> Duration {
    Duration::from_millis(500)
}

/// A header's name, in the order of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    pub fn get(&self) -> HeaderName {
        HeaderName::from_bytes(self.0.as_bytes()).expect("it was checked when it was read")
    }
}

/// A status, or all from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    pub fn contains(self, status: StatusCode) -> bool {
        (self.first..=self.last).contains(&status.as_u16())
    }
}

/// When what requests meet takes an endpoint out, and for how long.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Outlier {
    /// Requests in a row that got no answer: no connection, broken off, or timed out. 0 for never.
    pub consecutive_failures: u32,
    /// Answers of 500 and above in a row. 0 for never.
    pub consecutive_errors: u32,
    /// The share of requests without an answer in an interval, where it is twice that of the other endpoints. 1 for never.
    pub failure_rate: Share,
    /// The share of answers of 500 and above in an interval.
    pub error_rate: Option<Share>,
    /// So many times as slow as the endpoint in the middle.
    #[serde(deserialize_with = "factor")]
    pub latency_factor: Option<f64>,
    /// How often rates and latencies are looked at.
    pub interval: Duration,
    /// An endpoint with fewer requests in an interval is not judged by rate or latency.
    pub min_requests: u32,
    /// How long it stays out the first time; twice as long each time that it does not last.
    pub eject: Duration,
    pub eject_max: Duration,
    /// The share of an upstream's endpoints that may be out at once, those without a connection not counted.
    pub share_max: Share,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            consecutive_errors: 0,
            failure_rate: Share::new(0.3),
            error_rate: None,
            latency_factor: None,
            interval: Duration::from_secs(10),
            min_requests: 20,
            eject: Duration::from_secs(10),
            eject_max: Duration::from_secs(300),
            share_max: Share::new(0.5),
        }
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathAndQuery, D::Error> {
    written(deserializer, "a path such as \"/healthz\"", |text| {
        text.starts_with('/').then(|| text.parse().ok()).flatten()
    })
}

fn pointer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    written(deserializer, "the way to a number in JSON, such as \"/cpu/used\"", |text| {
        text.starts_with('/').then(|| text.to_owned())
    })
    .map(Some)
}

fn load_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let interval = Duration::deserialize(deserializer)?;
    match interval <= Duration::from_secs(5) {
        true => Ok(interval),
        false => Err(de::Error::custom("expected at most \"5s\", as a report counts for ten seconds")),
    }
}

fn service<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    written(deserializer, "the name of a service, of up to 100 visible ASCII characters", |text| {
        (text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
    })
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    written(deserializer, "a method in capitals, such as \"GET\"", |text| {
        let is_capital = text.bytes().all(|byte| byte.is_ascii_uppercase());
        is_capital.then(|| text.parse().ok()).flatten().filter(|method| *method != Method::CONNECT)
    })
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HeaderValue>, D::Error> {
    written(deserializer, "a host such as \"app.internal\"", |text| {
        let authority: http::uri::Authority = text.parse().ok()?;
        HeaderValue::from_str(authority.as_str()).ok()
    })
    .map(Some)
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Name, HeaderValue>, D::Error> {
    struct Value(HeaderValue);

    impl<'de> Deserialize<'de> for Value {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            written(deserializer, "the value of a header", |text| text.parse().ok()).map(Self)
        }
    }

    let headers = BTreeMap::<Name, Value>::deserialize(deserializer)?;
    Ok(headers.into_iter().map(|(name, value)| (name, value.0)).collect())
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What belongs to the framing of the check itself.
        const OWN: [&str; 5] = ["connection", "content-length", "host", "transfer-encoding", "upgrade"];
        written(deserializer, "the name of a header other than `host` (a key) and those of framing", |text| {
            let name: HeaderName = text.parse().ok()?;
            (!OWN.contains(&name.as_str())).then(|| Self(name.as_str().to_owned()))
        })
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Statuses;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a status such as 204, or several such as \"200-299\"")
            }

            fn visit_i64<E: de::Error>(self, status: i64) -> Result<Statuses, E> {
                let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
                let unexpected = de::Unexpected::Other("number");
                let first = status.ok_or_else(|| E::invalid_value(unexpected, &self))?;
                Ok(Statuses { first, last: first })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
                let read = || {
                    let (first, last) = text.split_once('-')?;
                    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
                    (200 <= first && first <= last && last <= 599).then_some(Statuses { first, last })
                };
                read().ok_or_else(|| E::invalid_value(de::Unexpected::Other("text"), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = f64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a number above 1, such as 3.0")
        }

        fn visit_f64<E: de::Error>(self, factor: f64) -> Result<f64, E> {
            let is_usable = factor > 1.0 && factor.is_finite();
            is_usable
                .then_some(factor)
                .ok_or_else(|| E::invalid_value(de::Unexpected::Other("number"), &self))
        }

        fn visit_i64<E: de::Error>(self, factor: i64) -> Result<f64, E> {
            self.visit_f64(factor as f64)
        }
    }

    deserializer.deserialize_any(Visitor).map(Some)
}
