//! How does a request get over a connection that may have been closed meanwhile?
//!
//! An endpoint may close a connection that it has kept without a request for a while, just when the next request is sent.
//! If the endpoint cannot have read any of the request, it is sent once more over a connection that is made now. That is
//! the same for requests of clients and for those of plugins.

use std::{future::Future, rc::Rc, sync::Arc};

use super::{ConnectError, Endpoint, Lease, Pool, Terms, Upstream};

/// A request that can be sent over a connection, and once more over another while nothing of it was read.
pub trait Delivery {
    type Response;
    type Error;

    /// What the connection has to be.
    fn terms(&self) -> Terms<'_>;

    /// Sends it over this connection, and waits for the head of the response.
    fn over(
        &mut self,
        lease: &mut Lease,
    ) -> impl Future<Output = Result<Self::Response, NotDelivered<Self::Error>>>;
}

/// Why there is no response.
#[derive(Debug)]
pub enum NotDelivered<E> {
    NoConnection(ConnectError),
    /// The connection ended before the endpoint can have read any of the request, which can be sent again.
    Unread(hyper::Error),
    Failed(E),
}

/// Brings a request to an endpoint over a connection of this worker. Whatever else than [`NotDelivered::NoConnection`] comes
/// of it, this is one attempt.
pub async fn deliver<D: Delivery>(
    pool: &Rc<Pool>,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    delivery: &mut D,
) -> Result<(Lease, D::Response), NotDelivered<D::Error>> {
    let mut is_fresh = false;
    loop {
        let terms = Terms { is_fresh, ..delivery.terms() };
        let mut lease = pool.lease(upstream, endpoint, terms).await.map_err(NotDelivered::NoConnection)?;
        match delivery.over(&mut lease).await {
            Ok(response) => return Ok((lease, response)),
            // One that closes what was just made says something of itself.
            Err(NotDelivered::Unread(error)) if lease.is_reused() && !is_fresh => {
                tracing::debug!(endpoint = endpoint.authority.as_str(), %error, "idle connection was closed");
                is_fresh = true;
            }
            Err(error) => return Err(error),
        }
    }
}
