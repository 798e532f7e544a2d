//! Which plugin may take how much of the room that there is for instances?
//!
//! wasmtime's pool has places for so many memories, tables and instances, and all plugins take theirs from it. Without a rule, a
//! plugin with many memories and many calls under way takes the places of a guard, whose requests then fail. So a plugin that
//! serves reserves the places that it cannot do without, an instance for each worker, when it is loaded. What it takes beyond
//! that comes from what nobody has reserved, up to a share of the whole for each plugin.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// The room of an engine. It is counted in places: each has room for a memory, four tables and an instance.
#[derive(Debug)]
pub(super) struct Room {
    total: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    reserved: usize,
    /// By instances beyond those that were reserved.
    shared: usize,
}

/// Tables that a place has room for.
pub(super) const TABLES: usize = 4;

/// Why there is no place for another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error(
        "its instances have all the room that one plugin may have: {most} of {total} places, and each takes {each} (a place has \
         room for one memory and four tables)"
    )]
    Quota { each: usize, most: usize, total: usize },
    #[error(
        "there is no room for another instance: all plugins together have {total} places, and this one takes {each} (a place has \
         room for one memory and four tables)"
    )]
    Full { each: usize, total: usize },
}

impl Room {
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, taken: Mutex::default() })
    }

    /// What one plugin may take beyond what it has reserved. Others find as much, whatever one does; and of what all take so,
    /// half of the room remains for those that are loaded later.
    pub fn share(&self) -> usize {
        self.total / 4
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for so many instances, which take `each` places.
    pub fn reserve(
        self: &Arc<Self>,
        each: usize,
        instances: usize,
        beyond: Arc<AtomicUsize>,
    ) -> Result<Arc<Reservation>, NoRoom> {
        let mut taken = self.taken();
        let places = each.saturating_mul(instances);
        if taken.reserved.saturating_add(taken.shared).saturating_add(places) > self.total {
            return Err(NoRoom::Full { each, total: self.total });
        }
        taken.reserved += places;
        Ok(Arc::new(Reservation { room: self.clone(), each, instances, in_use: AtomicUsize::new(0), beyond }))
    }
}

/// The room that a plugin has reserved.
#[derive(Debug)]
pub(super) struct Reservation {
    room: Arc<Room>,
    /// Places that an instance takes.
    each: usize,
    instances: usize,
    /// Instances that have taken theirs from this.
    in_use: AtomicUsize,
    /// Places that instances of the plugin have taken beyond it, whichever generation they are of.
    beyond: Arc<AtomicUsize>,
}

impl Reservation {
    /// Instances that it has room for, whatever others do.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Instances that there may be at most.
    pub fn most(&self) -> usize {
        self.instances + self.room.share() / self.each
    }

    /// Room for one more instance.
    pub fn take(self: &Arc<Self>) -> Result<Place, NoRoom> {
        let reserved = self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_use| {
            (in_use < self.instances).then_some(in_use + 1)
        });
        if reserved.is_ok() {
            return Ok(Place { of: self.clone(), is_reserved: true });
        }
        let (each, total, most) = (self.each, self.room.total, self.room.share());
        let mut taken = self.room.taken();
        if self.beyond.load(Ordering::Relaxed) + each > most {
            return Err(NoRoom::Quota { each, most, total });
        }
        if taken.shared + each > total / 2 || taken.reserved + taken.shared + each > total {
            return Err(NoRoom::Full { each, total });
        }
        taken.shared += each;
        self.beyond.fetch_add(each, Ordering::Relaxed);
        Ok(Place { of: self.clone(), is_reserved: false })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.taken().reserved -= self.each * self.instances;
    }
}

/// The room of an instance, for as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Reservation>,
    is_reserved: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_reserved {
            self.of.in_use.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.of.room.taken().shared -= self.of.each;
            self.of.beyond.fetch_sub(self.of.each, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beyond() -> Arc<AtomicUsize> {
        Arc::default()
    }

    #[test]
    fn what_is_reserved_is_there_whatever_others_take() {
        let room = Room::new(64);
        let guard = room.reserve(1, 2, beyond()).unwrap();
        let greedy: Vec<_> = (0..4).map(|_| room.reserve(8, 1, beyond()).unwrap()).collect();
        let mut places = Vec::new();
        for plugin in &greedy {
            while let Ok(place) = plugin.take() {
                places.push(place);
            }
        }
        for _ in 0..3 {
            let both = [guard.take(), guard.take()];
            assert!(both.iter().all(Result::is_ok), "{both:?}");
        }
    }

    #[test]
    fn one_plugin_has_a_share_of_what_is_left_over_all_its_generations() {
        let room = Room::new(64);
        let count = beyond();
        let before = room.reserve(4, 0, count.clone()).unwrap();
        let after = room.reserve(4, 1, count).unwrap();
        let places = [before.take().unwrap(), before.take().unwrap(), after.take().unwrap()];
        let more = [after.take().unwrap(), after.take().unwrap()];
        let quota = NoRoom::Quota { each: 4, most: 16, total: 64 };
        assert_eq!(after.take().unwrap_err(), quota);
        assert_eq!(before.take().unwrap_err(), quota);
        assert_eq!(after.most(), 5);
        drop(more);
        assert!(before.take().is_ok());
        drop(places);
    }

    #[test]
    fn room_that_is_given_back_is_there_for_others() {
        let room = Room::new(16);
        let all = room.reserve(1, 16, beyond()).unwrap();
        let full = NoRoom::Full { each: 2, total: 16 };
        assert_eq!(room.reserve(2, 1, beyond()).unwrap_err(), full);
        let none = room.reserve(2, 0, beyond()).unwrap();
        assert_eq!(none.take().unwrap_err(), full);
        let place = all.take().unwrap();
        drop(all);
        // An instance keeps what was reserved for it until it goes.
        assert_eq!(none.take().unwrap_err(), full);
        drop(place);
        assert!(none.take().is_ok());
        let Taken { reserved, shared } = *room.taken();
        assert_eq!((reserved, shared), (0, 0));
    }
}
