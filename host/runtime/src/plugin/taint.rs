//! Does what plugins made of a message come from the client, past everything that a cache tells clients apart by?
//!
//! A key holds the URL, the upstream and the fields that a route names; `Vary` names others. A plugin may read what is in
//! neither (a token, a cookie, the client's address) and write the name of its user into a field that nobody has told
//! the cache of. So the host follows what flows through a plugin: what a call has read, and what it changed after that.
//! Only for routes that cache; an exchange without a [`Taint`] pays for one look at a pointer.
//!
//! It is followed by call, and from call to call through notes. What an instance remembers of other requests is not.

use http::HeaderName;
use smallvec::SmallVec;

/// What calls have read, and what they have made of it.
#[derive(Debug, Clone)]
pub struct Taint {
    /// It came with credentials.
    is_authorized: bool,
    /// Fields of the request that are in the key, as they are when all request hooks have run.
    keyed: Vec<HeaderName>,
    /// Whether the whole query is in the key.
    is_query_keyed: bool,
    /// What any call has read.
    read: Read,
    /// What the call that runs has read.
    of_call: Read,
    /// What calls had read that left notes.
    of_notes: Read,
    /// Fields of the request that were changed by calls that had read what is in no key.
    derived: SmallVec<[HeaderName; 2]>,
    /// The same of calls that had read nothing but what is in the key, unless it is changed after that.
    of_key: SmallVec<[HeaderName; 2]>,
    /// What has been read of what is in the key: fields, and whether the target was.
    read_of_key: SmallVec<[HeaderName; 2]>,
    has_read_target: bool,
    /// Something that was read is not in the key any more.
    has_changed_key: bool,
    /// A field that a plugin has read was taken away.
    has_consumed: bool,
    /// What calls had read that changed the response.
    of_response: Read,
    sets_cookie: bool,
}

/// What has been read that no key holds.
#[derive(Debug, Clone, Default)]
struct Read {
    /// Fields that were there.
    fields: SmallVec<[HeaderName; 4]>,
    all_fields: bool,
    /// What `Vary` has no name for: the client's address, its certificate, the body.
    others: bool,
    /// Something that is in the key, unless it is changed after that.
    key: bool,
}

impl Read {
    fn is_empty(&self) -> bool {
        self.fields.is_empty() && !self.all_fields && !self.others
    }

    fn add(&mut self, other: &Self) {
        for name in &other.fields {
            add(&mut self.fields, name);
        }
        self.all_fields |= other.all_fields;
        self.others |= other.others;
        self.key |= other.key;
    }
}

fn add<const N: usize>(names: &mut SmallVec<[HeaderName; N]>, name: &HeaderName) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}

impl Taint {
    /// `keyed` are fields of the request that are in the key; `is_authorized` says that it came with credentials.
    pub fn new(keyed: Vec<HeaderName>, is_query_keyed: bool, is_authorized: bool) -> Self {
        Self {
            is_authorized,
            keyed,
            is_query_keyed,
            read: Read::default(),
            of_call: Read::default(),
            of_notes: Read::default(),
            derived: SmallVec::new(),
            of_key: SmallVec::new(),
            read_of_key: SmallVec::new(),
            has_read_target: false,
            has_changed_key: false,
            has_consumed: false,
            of_response: Read::default(),
            sets_cookie: false,
        }
    }

    /// Another call begins, of this plugin or of another.
    pub fn begin_call(&mut self) {
        self.of_call = Read::default();
    }

    fn is_keyed(&self, name: &HeaderName) -> bool {
        self.keyed.contains(name)
    }

    /// A field of the request was read, and was there.
    pub(super) fn reads_field(&mut self, name: &str) {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
        if self.is_keyed(&name) {
            add(&mut self.read_of_key, &name);
            self.of_call.key = true;
        } else {
            add(&mut self.read.fields, &name);
            add(&mut self.of_call.fields, &name);
        }
    }

    pub(super) fn reads_all_fields(&mut self) {
        self.read.all_fields = true;
        self.of_call.all_fields = true;
    }

    /// Something about the client was read that no field says.
    pub(super) fn reads_client(&mut self) {
        self.of_call.others = true;
    }

    pub(super) fn reads_query(&mut self) {
        match self.is_query_keyed {
            true => self.reads_path(),
            false => self.of_call.others = true,
        }
    }

    pub(super) fn reads_path(&mut self) {
        self.has_read_target = true;
        self.of_call.key = true;
    }

    pub(super) fn reads_note(&mut self) {
        let of_notes = std::mem::take(&mut self.of_notes);
        self.of_call.add(&of_notes);
        self.of_notes = of_notes;
    }

    pub(super) fn leaves_note(&mut self) {
        let of_call = std::mem::take(&mut self.of_call);
        self.of_notes.add(&of_call);
        self.of_call = of_call;
    }

    /// A field of the request was set or added to.
    pub(super) fn sets_field(&mut self, name: &str) {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
        if self.is_keyed(&name) {
            self.has_changed_key |= self.read_of_key.contains(&name);
        } else if !self.of_call.is_empty() {
            add(&mut self.derived, &name);
        } else if self.of_call.key {
            add(&mut self.of_key, &name);
        }
    }

    /// A field of the request that was there was removed.
    pub(super) fn removes_field(&mut self, name: &str) {
        self.sets_field(name);
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
        self.has_consumed |= self.read.all_fields || self.read.fields.contains(&name);
    }

    pub(super) fn changes_target(&mut self) {
        self.has_changed_key |= self.has_read_target;
    }

    /// Anything of the response was changed.
    pub fn changes_response(&mut self) {
        let of_call = std::mem::take(&mut self.of_call);
        self.of_response.add(&of_call);
        self.of_call = of_call;
    }

    pub(super) fn changes_response_field(&mut self, name: &str) {
        self.sets_cookie |= name.eq_ignore_ascii_case("set-cookie");
        self.changes_response();
    }

    /// Whether the request came with credentials, or with something that a plugin has read and taken away as if it were
    /// some.
    pub fn is_authorized(&self) -> bool {
        self.is_authorized || self.has_consumed
    }

    /// Fields of the request that plugins have made of what no key holds.
    pub fn derived(&self) -> impl Iterator<Item = &HeaderName> {
        let of_key = self.of_key.iter().filter(|_| self.has_changed_key);
        self.derived.iter().chain(of_key)
    }

    /// Whether plugins have made the response of nothing but what is in the key and what it varies by.
    pub fn is_response_for_all(&self, varies_by: impl Fn(&HeaderName) -> bool) -> bool {
        let read = &self.of_response;
        let is_of_changed = read.key && self.has_changed_key;
        !read.others && !read.all_fields && !is_of_changed && read.fields.iter().all(varies_by)
    }

    /// Whether a plugin has set a cookie on the response.
    pub fn sets_cookie(&self) -> bool {
        self.sets_cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint() -> Taint {
        let keyed = [http::header::HOST, HeaderName::from_static("x-key"), HeaderName::from_static("x-new")];
        Taint::new(keyed.into(), true, false)
    }

    fn derived(taint: &Taint) -> Vec<&str> {
        taint.derived().map(HeaderName::as_str).collect()
    }

    #[test]
    fn credentials_that_were_read_and_taken_away_were_credentials() {
        let mut read_and_removed = taint();
        read_and_removed.reads_field("X-Api-Key");
        read_and_removed.removes_field("x-api-key");
        assert!(read_and_removed.is_authorized());

        let mut by_two_plugins = taint();
        by_two_plugins.reads_field("cookie");
        by_two_plugins.begin_call();
        by_two_plugins.removes_field("cookie");
        assert!(by_two_plugins.is_authorized());
        assert!(derived(&by_two_plugins).is_empty(), "the second has read nothing");

        let mut all = taint();
        all.reads_all_fields();
        all.removes_field("x-token");
        assert!(all.is_authorized());

        let mut unread = taint();
        unread.reads_field("origin");
        unread.removes_field("cookie");
        assert!(!unread.is_authorized(), "what nobody has read goes nowhere");

        let mut replaced = taint();
        replaced.reads_field("accept-language");
        replaced.sets_field("accept-language");
        assert!(!replaced.is_authorized() && derived(&replaced) == ["accept-language"]);
        assert!(Taint::new(vec![], true, true).is_authorized());
    }

    #[test]
    fn what_is_made_of_the_client_is_known() {
        type Call = fn(&mut Taint);
        for (read, expected) in [
            ((|taint| taint.reads_field("cookie")) as Call, &["x-user"][..]),
            (|taint| taint.reads_all_fields(), &["x-user"]),
            (|taint| taint.reads_client(), &["x-user"]),
            (|taint| taint.reads_field("x-key"), &[]),
            (|taint| taint.reads_field("Host"), &[]),
            (|taint| taint.reads_query(), &[]),
            (|taint| taint.reads_path(), &[]),
            (|_| {}, &[]),
        ] {
            let mut taint = taint();
            read(&mut taint);
            taint.sets_field("x-user");
            assert_eq!(derived(&taint), expected);
            taint.sets_field("x-new");
            assert_eq!(derived(&taint), expected, "the key holds what is made of it");
            taint.begin_call();
            taint.sets_field("x-constant");
            assert_eq!(derived(&taint), expected, "another call has read nothing");
        }
    }

    #[test]
    fn what_is_in_the_key_counts_once_it_is_taken_out() {
        let mut rewritten = taint();
        rewritten.reads_query();
        rewritten.sets_field("x-user");
        rewritten.changes_target();
        assert_eq!(derived(&rewritten), ["x-user"], "the token in the query is gone");
        let mut moved = taint();
        moved.reads_field("x-key");
        moved.sets_field("x-user");
        moved.removes_field("x-key");
        assert_eq!(derived(&moved), ["x-user"], "the key does not hold any more what was read");
        let mut partly = Taint::new(vec![], false, false);
        partly.reads_query();
        partly.sets_field("x-user");
        assert_eq!(derived(&partly), ["x-user"], "not all of the query is in the key");
    }

    #[test]
    fn notes_carry_what_was_read() {
        let mut taint = taint();
        taint.reads_field("authorization");
        taint.leaves_note();
        taint.begin_call();
        taint.sets_field("x-before");
        taint.reads_note();
        taint.sets_field("x-user");
        assert_eq!(derived(&taint), ["x-user"]);
    }

    #[test]
    fn a_response_is_for_all_if_it_varies_by_what_it_was_made_of() {
        let is_origin = |name: &HeaderName| name == "origin";
        let mut cors = taint();
        cors.reads_field("origin");
        assert!(cors.is_response_for_all(|_| false), "it was only read");
        cors.changes_response_field("access-control-allow-origin");
        assert!(cors.is_response_for_all(is_origin) && !cors.is_response_for_all(|_| false));
        cors.begin_call();
        cors.reads_client();
        cors.changes_response();
        assert!(!cors.is_response_for_all(is_origin));
        assert!(!cors.sets_cookie());
        cors.changes_response_field("Set-Cookie");
        assert!(cors.sets_cookie());
    }
}
