//! What is in a component, before anything of it is compiled?
//!
//! Read from its bytes alone, so that it can be told of files that no version of Tollgate would load, too.

use wasmparser::{Encoding, KnownCustom, Parser, Payload};

use super::{artifact::Digest, contract::CONTRACT};

/// A component, looked at from outside.
#[derive(Debug, Clone)]
pub struct Anatomy {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: usize,
    /// The versions of the contract that it names; one, if it was built against one.
    pub contract: Vec<String>,
    /// Names of what it imports and exports, in order.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Of all the modules in it.
    pub memories: Vec<Range>,
    pub tables: Vec<Range>,
    /// What made it: `language`, `processed-by` or `sdk`, a name, and a version, which may be empty.
    pub producers: Vec<(String, String, String)>,
}

/// From what to what a memory or a table may grow: in bytes, or in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub initial: u64,
    /// As far as the component itself says.
    pub maximum: Option<u64>,
}

/// Why a file cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum AnatomyError {
    #[error("not WebAssembly: {0}")]
    Invalid(String),
    #[error(
        "a core WebAssembly module, not a component: build it for wasm32-wasip2, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
}

/// How these bytes show that they are no WebAssembly at all; the parser would show every byte of a text.
pub(super) fn foreign(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [] => Some("it is empty"),
        bytes if !bytes.starts_with(b"\0asm") => Some("it does not begin with `\\0asm`"),
        _ => None,
    }
}

/// Bytes of a page of memory, unless a memory says otherwise.
const PAGE: u64 = 64 << 10;

impl Anatomy {
    pub fn of(bytes: &[u8]) -> Result<Self, AnatomyError> {
        let mut anatomy = Self {
            digest: Digest::of(bytes),
            size: bytes.len(),
            contract: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            memories: Vec::new(),
            tables: Vec::new(),
            producers: Vec::new(),
        };
        anatomy.read(bytes)?;
        let names = anatomy.imports.iter().chain(&anatomy.exports);
        anatomy.contract = names.filter_map(|name| Some(contract(name)?.1.to_owned())).collect::<Vec<_>>();
        anatomy.contract.sort();
        anatomy.contract.dedup();
        anatomy.producers.sort();
        anatomy.producers.dedup();
        Ok(anatomy)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), AnatomyError> {
        if let Some(what) = foreign(bytes) {
            return Err(AnatomyError::Invalid(what.into()));
        }
        let invalid =
            |error: wasmparser::BinaryReaderError| AnatomyError::Invalid(error.message().to_owned());
        // How many modules and components the one at hand is within.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(invalid)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(AnatomyError::CoreModule);
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        self.imports.push(import.map_err(invalid)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export.map_err(invalid)?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory.map_err(invalid)?;
                        let page = memory
                            .page_size_log2
                            .map_or(PAGE, |log2| 1_u64.checked_shl(log2).unwrap_or(PAGE));
                        self.memories.push(Range {
                            initial: memory.initial.saturating_mul(page),
                            maximum: memory.maximum.map(|pages| pages.saturating_mul(page)),
                        });
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        let table = table.map_err(invalid)?.ty;
                        self.tables.push(Range { initial: table.initial, maximum: table.maximum });
                    }
                }
                Payload::CustomSection(section) => {
                    if let KnownCustom::Producers(fields) = section.as_known() {
                        for field in fields {
                            let field = field.map_err(invalid)?;
                            for value in field.values {
                                let value = value.map_err(invalid)?;
                                let [kind, name, version] =
                                    [field.name, value.name, value.version].map(str::to_owned);
                                self.producers.push((kind, name, version));
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The version of the contract that this Tollgate speaks.
    pub fn spoken() -> &'static str {
        CONTRACT
    }

    /// The interfaces of the contract that it imports, without their versions.
    pub fn imported(&self) -> Vec<&str> {
        self.imports.iter().filter_map(|name| Some(contract(name)?.0)).collect()
    }

    /// The interfaces of the contract that it exports, without their versions.
    pub fn exported(&self) -> Vec<&str> {
        self.exports.iter().filter_map(|name| Some(contract(name)?.0)).collect()
    }

    /// The interfaces of WASI that it imports.
    pub fn wasi(&self) -> Vec<&str> {
        self.imports.iter().map(String::as_str).filter(|name| name.starts_with("wasi:")).collect()
    }

    /// What it imports that is neither of the contract nor of WASI.
    pub fn foreign(&self) -> Vec<&str> {
        let is_known = |name: &&str| contract(name).is_some() || name.starts_with("wasi:");
        self.imports.iter().map(String::as_str).filter(|name| !is_known(name)).collect()
    }
}

/// Interface and version of a name of the contract.
fn contract(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("tollgate:policy/")?.split_once('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_plugin_is_what_it_is() {
        let bytes = super::super::shipped::find("api-key").expect("it is shipped");
        let anatomy = Anatomy::of(bytes).expect("it is a component");
        assert_eq!(anatomy.size, bytes.len());
        assert_eq!(anatomy.contract, [CONTRACT]);
        assert!(anatomy.exported().contains(&"request-hook"), "{anatomy:?}");
        assert!(anatomy.imported().contains(&"request"), "{anatomy:?}");
        assert!(anatomy.foreign().is_empty(), "{anatomy:?}");
        assert_eq!(anatomy.memories.len(), 1);
        let generator =
            |(kind, name, _): &(String, String, String)| kind == "processed-by" && name == "wit-component";
        assert!(anatomy.producers.iter().any(generator), "{:?}", anatomy.producers);
    }

    #[test]
    fn what_is_no_component_is_told_apart() {
        assert!(matches!(Anatomy::of(b"\0asm\x01\0\0\0"), Err(AnatomyError::CoreModule)));
        let bytes = super::super::shipped::find("api-key").expect("it is shipped");
        for length in [0, 1, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
            // The middle of a file may end at the end of a section; what counts is that nothing panics.
            let _ = Anatomy::of(&bytes[..length]);
        }
        assert!(matches!(Anatomy::of(b""), Err(AnatomyError::Invalid(_))));
        assert!(matches!(Anatomy::of(b"(component)"), Err(AnatomyError::Invalid(_))));
    }
}
