//! What do the endpoints work with?

use std::{path::Path, sync::Arc};

use axum::extract::FromRef;

use super::recent::Recent;
use crate::server::Server;

/// What endpoints work with.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub server: Arc<Server>,
    /// What a reload reads.
    pub config: Option<Arc<Path>>,
    pub recent: Arc<Recent>,
}

impl FromRef<Context> for Arc<Server> {
    fn from_ref(context: &Context) -> Self {
        context.server.clone()
    }
}
