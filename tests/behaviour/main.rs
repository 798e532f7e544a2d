//! The promises of Tollgate, each tested on a proxy that runs.

mod connections;
mod forwarding;
mod limits;
mod load;
mod routing;
mod safety;
