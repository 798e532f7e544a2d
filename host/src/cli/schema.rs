//! `tollgate schema`

use crate::config;

pub(super) fn run() {
    say!("{:#}", config::schema());
}
