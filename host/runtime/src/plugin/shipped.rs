//! Which plugins come with the executable?

/// Names and components of the default plugins, sorted by name; `build.rs` compiles them.
pub static SHIPPED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// The component of the shipped plugin of this name.
pub fn find(name: &str) -> Option<&'static [u8]> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, component)| *component)
}
