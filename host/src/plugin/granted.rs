//! What does a plugin get when it calls what it was granted?
//!
//! The interfaces of the contract that are granted by name, on the store's data. A component that imports one
//! without a grant is not loaded, so none of these is ever called by such a one.

use std::time::Duration;

use super::{
    bindings::tollgate::policy::{secret, store},
    capability::{Store, StoreError},
    instance::State,
};

impl From<StoreError> for store::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::TooLarge => Self::TooLarge,
            StoreError::WrongKind => Self::WrongKind,
        }
    }
}

impl State {
    fn store(&self) -> Result<&Store, store::Error> {
        self.surroundings.capabilities.store.as_ref().ok_or(store::Error::Unavailable)
    }
}

fn milliseconds(number: Option<u32>) -> Option<Duration> {
    number.map(|number| Duration::from_millis(number.into()))
}

impl store::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, store::Error> {
        Ok(self.store()?.get(&key, self.now())?)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u32>) -> Result<(), store::Error> {
        Ok(self.store()?.set(&key, value, milliseconds(ttl_ms), self.now())?)
    }

    fn compare_and_set(
        &mut self,
        key: String,
        old: Option<Vec<u8>>,
        new: Vec<u8>,
        ttl_ms: Option<u32>,
    ) -> Result<bool, store::Error> {
        let ttl = milliseconds(ttl_ms);
        Ok(self.store()?.compare_and_set(&key, old.as_deref(), new, ttl, self.now())?)
    }

    fn increment(&mut self, key: String, delta: i32, ttl_ms: Option<u32>) -> Result<i32, store::Error> {
        Ok(self.store()?.increment(&key, delta, milliseconds(ttl_ms), self.now())?)
    }

    fn take(
        &mut self,
        key: String,
        cost: u32,
        per_second: f64,
        burst: u32,
    ) -> Result<Option<u32>, store::Error> {
        Ok(self.store()?.take(&key, cost, per_second, burst, self.now())?)
    }

    fn delete(&mut self, key: String) -> Result<(), store::Error> {
        self.store()?.delete(&key);
        Ok(())
    }
}

impl secret::Host for State {
    fn verify(&mut self, name: String, candidate: Vec<u8>) -> bool {
        self.surroundings.capabilities.secrets.verify(&name, &candidate)
    }

    fn hmac_sha256(&mut self, name: String, message: Vec<u8>) -> Option<Vec<u8>> {
        self.surroundings.capabilities.secrets.hmac_sha256(&name, &message).map(Vec::from)
    }
}
