//! Where is a request answered?

use std::{cell::Cell, rc::Rc};

use super::{connection::Connection, grpc, meter::Meter};
use crate::live::{Generation, Worker};

/// On which worker a request is answered, by which generation, for which connection.
pub(super) struct Context {
    pub worker: Rc<Worker>,
    pub generation: Rc<Generation>,
    pub connection: Rc<Connection>,
    pub meter: Meter,
    pub call: Option<grpc::Call>,
    /// The scheme that the client used, once that is known; until then that of its connection.
    pub scheme: Cell<&'static str>,
}
