//! What has been made of a stored body for clients that want it encoded?
//!
//! Each encoding is made once, by the first who asks for it; whoever asks meanwhile reads along. It counts in the
//! weight of the stored response from when it is complete, and goes with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{body::StoredBody, key::Key, store::Store, stored::Stored, stream::Stream};
use crate::config::Encoding;

/// A stored response that goes to a client, and where it is stored.
#[derive(Debug, Clone)]
pub struct Kept {
    pub store: Arc<Store>,
    pub key: Key,
    pub stored: Arc<Stored>,
}

/// Where an encoded form is to be had.
#[derive(Debug)]
pub enum Wanted {
    Made(StoredBody),
    Coming(Arc<Stream>),
    /// Whoever asked is to make it.
    Missing(Making),
}

/// The duty to make an encoded form. If it is dropped before, those who read along see it break off.
#[derive(Debug)]
pub struct Making {
    kept: Kept,
    encoding: Encoding,
    pub stream: Arc<Stream>,
}

impl Kept {
    /// The body in this encoding, or whose turn it is to make it.
    pub fn form(&self, encoding: Encoding) -> Wanted {
        let form = self.stored.encoded.form(encoding);
        if let Some(body) = form.made.get() {
            return Wanted::Made(body.clone());
        }
        let mut coming = lock(&form.coming);
        match (&*coming, form.made.get()) {
            (_, Some(body)) => Wanted::Made(body.clone()),
            (Some(stream), None) => Wanted::Coming(stream.clone()),
            (None, None) => {
                let stream = Stream::kept_whole();
                *coming = Some(stream.clone());
                Wanted::Missing(Making { kept: self.clone(), encoding, stream })
            }
        }
    }
}

impl Making {
    /// All of it has been pushed to the stream.
    pub fn finish(self) {
        let Kept { store, key, stored } = &self.kept;
        // Known before the stream ends, so that whoever asks then does not make it again.
        let _ = stored.encoded.form(self.encoding).made.set(StoredBody::new(self.stream.kept()));
        store.weigh(key);
        self.stream.finish(None);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        *lock(&self.kept.stored.encoded.form(self.encoding).coming) = None;
        self.stream.break_off();
    }
}

/// What a holder of the lock leaves is whole even if it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::policy::{Freshness, Selection, Time};

    #[test]
    fn one_makes_it_and_it_counts() {
        let store = Arc::new(Store::new(10, 1 << 20, 1 << 16, None));
        let key = Key::restored("http://h/\napp".to_owned());
        let stored = Arc::new(Stored {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: StoredBody::new(vec![Bytes::from_static(b"body")]),
            encoded: Arc::default(),
            freshness: Freshness {
                lifetime: 60,
                initial_age: 0,
                received: Time(1000),
                always_validates: false,
                never_stale: false,
                stale_while_revalidate: 0,
                stale_if_error: None,
            },
            selection: Selection::default(),
            tags: Box::default(),
        });
        store.put(&key, stored.clone(), Time(1000));
        let before = store.bytes();
        let kept = Kept { store: store.clone(), key, stored };
        let Wanted::Missing(making) = kept.form(Encoding::Gzip) else { panic!("nobody has made it") };
        assert!(matches!(kept.form(Encoding::Gzip), Wanted::Coming(_)));
        assert!(matches!(kept.form(Encoding::Brotli), Wanted::Missing(_)), "each is made by itself");
        drop(making);
        let Wanted::Missing(making) = kept.form(Encoding::Gzip) else { panic!("it was given up") };
        making.stream.push(Bytes::from(vec![7; 1000]));
        assert_eq!(store.bytes(), before);
        making.finish();
        assert!(matches!(kept.form(Encoding::Gzip), Wanted::Made(body) if body.len() == 1000));
        assert!(store.bytes() >= before + 1000);
    }
}
