//! What does a balancer know of the endpoints that it chooses from?

/// The place of the endpoint that a balancer chose; none if it has no opinion.
pub type Pick = Option<usize>;

/// The endpoints of an upstream, as a balancer may know them.
pub trait Members: Send + Sync + std::fmt::Debug {
    /// The name of the upstream.
    fn upstream(&self) -> &str;
    /// Another number for another list: who has seen this one need not be told again.
    fn version(&self) -> u64;
    /// What a balancer is told.
    fn describe(&self) -> Vec<Member>;
    /// How many there are.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How one of them does at this moment.
    fn inspect(&self, index: usize) -> Option<Condition>;
}

/// An endpoint, described to a balancer.
#[derive(Debug, Clone)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    pub weight: u32,
    pub tags: Vec<(String, String)>,
}

/// How an endpoint does.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// Requests in flight.
    pub active: u32,
    /// Moving average of the time to the head of a response, in microseconds.
    pub latency_us: u32,
    /// Failures in a row.
    pub failures: u32,
    /// What it has reported of its load of late, if it has.
    pub load: Option<f32>,
}
