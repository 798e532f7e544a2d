//! What is to come of it?

use toml::{Table, Value};

use crate::{push, put};

/// What is expected of a step; what is not named may be as it likes. In place of a value, `"*"` is for anything, as long
/// as it is there.
#[derive(Debug, Clone, Default)]
pub struct Expect(pub(crate) Table);

impl Expect {
    /// Nothing but what is added.
    pub fn that() -> Self {
        Self::default()
    }

    /// The last hook lets the request or the response go on.
    pub fn next() -> Self {
        Self::default().with(&["verdict"], "next")
    }

    /// The plugin answers with this status.
    pub fn reply(status: u16) -> Self {
        Self::default().with(&["reply", "status"], i64::from(status))
    }

    /// The request goes on to this upstream.
    pub fn forward(upstream: &str) -> Self {
        Self::default().with(&["verdict"], "forward").with(&["upstream"], upstream)
    }

    /// What the calls of `pick` give.
    pub fn picks(places: impl IntoIterator<Item = u32>) -> Self {
        let places: Vec<Value> = places.into_iter().map(|place| Value::Integer(place.into())).collect();
        Self::default().with(&["picks"], places)
    }

    /// The configuration is refused, with these words in the message.
    pub fn refused(words: &str) -> Self {
        Self::default().with(&["refused"], words)
    }

    /// The hook fails: `"deadline"`, `"memory"`, `"trap"` or `"invalid-reply"`.
    pub fn error(kind: &str) -> Self {
        Self::default().with(&["error"], kind)
    }

    /// A header of the request, as it is afterwards.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(&["headers", name], value)
    }

    /// That the request has no such header afterwards.
    pub fn no_header(self, name: &str) -> Self {
        self.with(&["headers", name], false)
    }

    /// Path and query, as they are afterwards.
    pub fn target(self, target: &str) -> Self {
        self.with(&["target"], target)
    }

    /// The body of the request, as it is afterwards.
    pub fn body(self, body: &str) -> Self {
        self.with(&["body"], body)
    }

    pub fn reply_header(self, name: &str, value: &str) -> Self {
        self.with(&["reply", "headers", name], value)
    }

    pub fn reply_body_contains(self, words: &str) -> Self {
        self.with(&["reply", "body-contains"], words)
    }

    /// The status of the response, as it is afterwards.
    pub fn response_status(self, status: u16) -> Self {
        self.with(&["response", "status"], i64::from(status))
    }

    /// A header of the response, as it is afterwards.
    pub fn response_header(self, name: &str, value: &str) -> Self {
        self.with(&["response", "headers", name], value)
    }

    pub fn note(self, name: &str, value: &str) -> Self {
        self.with(&["notes", name], value)
    }

    /// What is in the store afterwards.
    pub fn stored(self, key: &str, value: &str) -> Self {
        self.with(&["store", key], value)
    }

    /// That nothing is under this key.
    pub fn not_stored(self, key: &str) -> Self {
        self.with(&["store", key], false)
    }

    /// A line that is logged; several come in this order, with others between them.
    pub fn log(mut self, level: &str, words: &str) -> Self {
        let mut line = Table::new();
        put(&mut line, &["level"], level);
        put(&mut line, &["contains"], words);
        push(&mut self.0, &["logs"], line);
        self
    }

    /// That nothing is logged.
    pub fn no_log(self) -> Self {
        self.with(&["logs"], Vec::<Value>::new())
    }

    /// The value of a metric.
    pub fn metric(self, name: &str, value: f64) -> Self {
        self.with(&["metrics", name], value)
    }

    /// All requests that the plugin has sent, in order: `"GET https://auth.example.com/check"`.
    pub fn sent(self, requests: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let requests: Vec<Value> =
            requests.into_iter().map(|request| Value::String(request.into())).collect();
        self.with(&["sent"], requests)
    }

    /// The part of the picks that falls on an address.
    pub fn share(self, address: &str, part: f64) -> Self {
        self.with(&["share", address], part)
    }

    fn with(mut self, at: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.0, at, value);
        self
    }
}
