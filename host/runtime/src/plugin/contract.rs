//! Which contract do the host and its plugins speak?

/// The version of the contract in `wit/`.
pub(super) const CONTRACT: &str = "0.1.0";
