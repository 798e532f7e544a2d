//! Where are the keys, and when are they fetched?

use tollgate_plugin_bearer::Keys;
use tollgate_plugin_sdk::{
    Seconds, Url,
    http_client::{self, Outgoing},
    log::{self, Level},
    store,
};

/// A set of keys, at its address and in the store.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) url: Url,
    /// Between two times that a token with an unknown key has the set fetched.
    pub(crate) refetch: Seconds,
}

/// The set, as it came.
const SET: &str = "jwks";

/// Counted up whenever there is another set. Written after it: who has read a version has the set of it, or a later one.
const VERSION: &str = "version";

impl Remote {
    /// In milliseconds.
    const TIMEOUT: u32 = 5_000;

    /// Requests that may fetch the set at once, and in each second, while there is none at all.
    const FIRST: u32 = 8;

    /// Of the set in the store. None if there is no set.
    pub(crate) fn version(&self) -> Option<i32> {
        let version = store::get(VERSION).ok()??;
        std::str::from_utf8(&version).ok()?.parse().ok()
    }

    pub(crate) fn keys(&self) -> Option<Keys> {
        Keys::of_set(&store::get(SET).ok()??).ok()
    }

    /// Whether a request that has found no keys may fetch them.
    pub(crate) fn may_fetch_first(&self) -> bool {
        store::take("first", 1, f64::from(Self::FIRST), Self::FIRST) == Ok(None)
    }

    /// Whether one that has found none for its token may. Who makes such tokens up must not have the issuer asked all
    /// the time.
    pub(crate) fn may_fetch_again(&self) -> bool {
        store::take("again", 1, 1.0 / f64::from(self.refetch.get()), 1) == Ok(None)
    }

    /// Fetches the set and puts it into the store. If that fails, what is there stays. Whether the store has one from now.
    pub(crate) fn fetch(&self) -> bool {
        match self.fetched().and_then(|(set, keys)| put(&set, &keys)) {
            Ok(()) => true,
            Err(reason) => {
                log::write(Level::Warn, &format!("the keys are not renewed: {reason}"));
                false
            }
        }
    }

    fn fetched(&self) -> Result<(Vec<u8>, Keys), String> {
        let accept = "application/jwk-set+json, application/json;q=0.9";
        let request = Outgoing {
            method: "GET".to_owned(),
            url: self.url.as_str().to_owned(),
            headers: vec![("accept".to_owned(), accept.to_owned())],
            body: Vec::new(),
            timeout_ms: Self::TIMEOUT,
        };
        let response = http_client::send(&request).map_err(|error| error.name().to_owned())?;
        if response.status != 200 {
            return Err(format!("the answer is {}", response.status));
        }
        let keys = Keys::of_set(&response.body).map_err(|reason| format!("the answer {reason}"))?;
        Ok((response.body, keys))
    }
}

/// A set that is there already is no other version.
fn put(set: &[u8], keys: &Keys) -> Result<(), String> {
    let failed = |error: store::Error| format!("the store is {}", error.name());
    if store::get(SET).map_err(failed)?.as_deref() == Some(set) {
        return Ok(());
    }
    store::set(SET, set, None).map_err(failed)?;
    store::increment(VERSION, 1, None).map_err(failed)?;
    log::write(Level::Info, "the keys are others");
    for reason in keys.left_out() {
        log::write(Level::Warn, &format!("a key of the set is not used: {reason}"));
    }
    Ok(())
}
