//! `tollgate schema`

use super::output::say;
use crate::config;

pub(super) fn run() {
    say!("{:#}", config::schema());
}
