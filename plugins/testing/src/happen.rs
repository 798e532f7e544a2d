//! What happens to the plugin?

use toml::{Table, Value};

use crate::put;

/// A request as the plugin sees it. What is not said of it is as usual: it is of `example.com`, from 192.0.2.1.
#[derive(Debug, Clone)]
pub struct Request(pub(crate) Table);

/// What the upstream has answered.
#[derive(Debug, Clone)]
pub struct Response(pub(crate) Table);

/// An endpoint of the upstream.
#[derive(Debug, Clone)]
pub struct Endpoint(pub(crate) Table);

/// What somebody answers to a request of the plugin's own.
#[derive(Debug, Clone)]
pub struct Answer(pub(crate) Table);

impl Request {
    /// With path and query.
    pub fn new(method: &str, path: &str) -> Self {
        Self(Table::new()).with(&["method"], method).with(&["path"], path)
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        add_header(&mut self.0, name, value);
        self
    }

    /// Whose address it comes from.
    pub fn client(self, address: &str) -> Self {
        self.with(&["client-address"], address)
    }

    /// Host and port that it is for.
    pub fn authority(self, authority: &str) -> Self {
        self.with(&["authority"], authority)
    }

    /// The name of its route.
    pub fn route(self, name: &str) -> Self {
        self.with(&["route"], name)
    }

    /// The name of the upstream that it is bound for.
    pub fn upstream(self, name: &str) -> Self {
        self.with(&["upstream"], name)
    }

    /// Its body. Only a plugin that imports `body` sees it.
    pub fn body(self, body: &str) -> Self {
        self.with(&["body"], body)
    }

    fn with(mut self, at: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.0, at, value);
        self
    }
}

impl Response {
    pub fn of(status: u16) -> Self {
        Self(Table::new()).with(&["status"], i64::from(status))
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        add_header(&mut self.0, name, value);
        self
    }

    /// Who has answered.
    pub fn endpoint(self, address: &str) -> Self {
        self.with(&["endpoint"], address)
    }

    pub fn body(self, body: &str) -> Self {
        self.with(&["body"], body)
    }

    fn with(mut self, at: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.0, at, value);
        self
    }
}

impl Endpoint {
    /// `host:port`.
    pub fn at(address: &str) -> Self {
        Self(Table::new()).with(&["address"], address)
    }

    pub fn weight(self, weight: u32) -> Self {
        self.with(&["weight"], i64::from(weight))
    }

    pub fn tag(self, name: &str, value: &str) -> Self {
        self.with(&["tags", name], value)
    }

    /// Requests in flight.
    pub fn active(self, requests: u32) -> Self {
        self.with(&["active"], i64::from(requests))
    }

    /// Moving average of the time to a response: `"20ms"`.
    pub fn latency(self, time: &str) -> Self {
        self.with(&["latency"], time)
    }

    fn with(mut self, at: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.0, at, value);
        self
    }
}

impl Answer {
    /// To requests of this method, for this URL.
    pub fn to(method: &str, url: &str) -> Self {
        Self(Table::new()).with(&["method"], method).with(&["url"], url).status(200)
    }

    /// 200, if nothing else is said.
    pub fn status(self, status: u16) -> Self {
        self.with(&["status"], i64::from(status))
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        add_header(&mut self.0, name, value);
        self
    }

    pub fn body(self, body: &str) -> Self {
        self.with(&["body"], body)
    }

    /// None: the plugin is told `"denied"`, `"unreachable"`, `"timed-out"` or `"too-large"`.
    pub fn fails(mut self, error: &str) -> Self {
        self.0.remove("status");
        self.with(&["error"], error)
    }

    fn with(mut self, at: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.0, at, value);
        self
    }
}

/// A header that comes several times is a list.
fn add_header(table: &mut Table, name: &str, value: &str) {
    let headers = crate::place(table, &["headers"]);
    let Some(headers) = headers.as_table_mut() else { return };
    let value = Value::from(value);
    match headers.get_mut(name) {
        None => drop(headers.insert(name.to_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(one) => *one = Value::Array(vec![one.clone(), value]),
    }
}
