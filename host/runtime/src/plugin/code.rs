//! What does a component export, and what does it ask for?

use std::sync::Arc;

use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker, types::ComponentItem};

use super::{
    artifact::Digest,
    bindings::exports::tollgate::policy::{
        balance_hook, complete_hook, lifecycle, request_hook, response_hook,
    },
    capability::Capability,
    contract::CONTRACT,
    counts::Hook,
    load_error::LoadError,
    room::{Room, TABLES},
    state::State,
    wasi,
};

/// A component, compiled and linked. Shared by all plugins made from the same bytes.
pub struct Code {
    digest: Digest,
    size: usize,
    pub(super) instance: InstancePre<State>,
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) request: Option<request_hook::GuestIndices>,
    pub(super) response: Option<response_hook::GuestIndices>,
    pub(super) balance: Option<balance_hook::GuestIndices>,
    /// Where its functions are, for calls of them that take several turns.
    pub(super) functions: Functions,
    /// Whether it imports what may have to be waited for.
    waits: bool,
    /// Where `on-complete` is.
    pub(super) on_complete: Option<ComponentExportIndex>,
    /// Where `on-tick` is.
    pub(super) on_tick: Option<ComponentExportIndex>,
    imports: Vec<Capability>,
    takes: Takes,
    /// Where its instances find room.
    pub(super) room: Arc<Room>,
}

/// What an instance takes of what all plugins share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takes {
    pub memories: u32,
    pub tables: u32,
}

impl Takes {
    fn of(component: &Component) -> Self {
        // Not known where modules are imported, which nobody offers.
        let most = Self { memories: 8, tables: 32 };
        component
            .resources_required()
            .map_or(most, |required| Self { memories: required.num_memories, tables: required.num_tables })
    }

    /// Places of the room for instances.
    pub(super) fn places(self) -> usize {
        let of_tables = (self.tables as usize).div_ceil(TABLES);
        (self.memories as usize).max(of_tables).max(1)
    }
}

/// The functions of a component, by place.
pub(super) struct Functions {
    pub configure: ComponentExportIndex,
    pub on_request: Option<ComponentExportIndex>,
    pub on_response: Option<ComponentExportIndex>,
}

impl Functions {
    fn of(component: &Component) -> Option<Self> {
        Some(Self {
            configure: function(component, "lifecycle", "configure")?,
            on_request: function(component, "request-hook", "on-request"),
            on_response: function(component, "response-hook", "on-response"),
        })
    }
}

/// Where a function of an interface of the contract is, if it is exported.
fn function(component: &Component, interface: &str, function: &str) -> Option<ComponentExportIndex> {
    let name = format!("tollgate:policy/{interface}@{CONTRACT}");
    let interface = component.get_export_index(None, &name)?;
    component.get_export_index(Some(&interface), function)
}

/// Which hooks a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hooks {
    pub request: bool,
    pub response: bool,
    pub balance: bool,
    pub complete: bool,
}

impl Hooks {
    /// Whether it has anything to do with the requests of a route.
    pub fn are_for_routes(self) -> bool {
        self.request || self.response || self.complete
    }
}

impl Code {
    pub(super) fn new(
        digest: Digest,
        size: usize,
        instance: InstancePre<State>,
        room: Arc<Room>,
    ) -> Result<Self, LoadError> {
        let exports = |interface: &str| {
            let name = format!("tollgate:policy/{interface}@{CONTRACT}");
            instance.component().get_export_index(None, &name).is_some()
        };
        if !exports("lifecycle") {
            return Err(other_contract(instance.component()).unwrap_or(LoadError::NoLifecycle));
        }
        // A hook that is there but has another shape is a fault, not an absence.
        let request = exports("request-hook").then(|| request_hook::GuestIndices::new(&instance));
        let response = exports("response-hook").then(|| response_hook::GuestIndices::new(&instance));
        let balance = exports("balance-hook").then(|| balance_hook::GuestIndices::new(&instance));
        let complete = exports("complete-hook").then(|| complete_hook::GuestIndices::new(&instance));
        complete.transpose().map_err(LoadError::Misfit)?;
        let imports = capabilities(instance.component());
        Ok(Self {
            digest,
            size,
            functions: Functions::of(instance.component()).ok_or(LoadError::NoLifecycle)?,
            waits: imports.iter().any(|capability| capability.waits()),
            lifecycle: lifecycle::GuestIndices::new(&instance).map_err(LoadError::Misfit)?,
            request: request.transpose().map_err(LoadError::Misfit)?,
            response: response.transpose().map_err(LoadError::Misfit)?,
            balance: balance.transpose().map_err(LoadError::Misfit)?,
            on_complete: function(instance.component(), "complete-hook", "on-complete"),
            on_tick: function(instance.component(), "tick-hook", "on-tick"),
            imports,
            takes: Takes::of(instance.component()),
            room,
            instance,
        })
    }

    /// The SHA-256 of the component's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The size of the component in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What an instance of it takes.
    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// What it can only be run with if it was granted.
    pub fn imports(&self) -> &[Capability] {
        &self.imports
    }

    /// Whether a call of it may have to wait, for what it imports.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether it has this hook.
    pub fn exports(&self, hook: Hook) -> bool {
        match hook {
            Hook::OnRequest => self.request.is_some(),
            Hook::OnResponse => self.response.is_some(),
            Hook::Pick => self.balance.is_some(),
            Hook::OnComplete => self.on_complete.is_some(),
            Hook::OnTick => self.on_tick.is_some(),
        }
    }

    pub fn hooks(&self) -> Hooks {
        Hooks {
            request: self.request.is_some(),
            response: self.response.is_some(),
            balance: self.balance.is_some(),
            complete: self.on_complete.is_some(),
        }
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Code").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The linker for one component: what every plugin is given, and stubs for the WASI it may name but not use.
pub(super) fn linker_for(base: &Linker<State>, component: &Component) -> Result<Linker<State>, LoadError> {
    if let Some(error) = other_contract(component) {
        return Err(error);
    }
    let mut linker = base.clone();
    let engine = component.engine();
    // A resource belongs to the interface that names it first; further ones only use it.
    let mut resources = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            return Err(LoadError::UnknownImport(name.to_owned()));
        };
        if wasi::is_denied(name) {
            wasi::deny(&mut linker, name, &interface, &resources, engine).map_err(LoadError::Misfit)?;
        } else if !(wasi::is_offered(name) || is_offered(name)) {
            return Err(LoadError::UnknownImport(name.to_owned()));
        }
        resources.extend(interface.exports(engine).filter_map(|(_, item)| match item.ty {
            ComponentItem::Resource(resource) => Some(resource),
            _ => None,
        }));
    }
    Ok(linker)
}

/// Whether an import is one of the interfaces of the contract.
fn is_offered(import: &str) -> bool {
    const GIVEN: [&str; 7] = ["types", "request", "response", "log", "sequence", "metrics", "pool"];
    let granted = Capability::ALL.map(Capability::interface);
    interface(import).is_some_and(|interface| GIVEN.contains(&interface) || granted.contains(&interface))
}

/// What a component imports that has to be granted.
fn capabilities(component: &Component) -> Vec<Capability> {
    let engine = component.engine();
    let ty = component.component_type();
    let imports: Vec<&str> = ty.imports(engine).filter_map(|(name, _)| interface(name)).collect();
    Capability::ALL.into_iter().filter(|capability| imports.contains(&capability.interface())).collect()
}

/// The interface of the contract that an import names.
fn interface(import: &str) -> Option<&str> {
    let (interface, version) = import.strip_prefix("tollgate:policy/")?.split_once('@')?;
    (version == CONTRACT).then_some(interface)
}

/// The error for a component that was built against another version of the contract.
fn other_contract(component: &Component) -> Option<LoadError> {
    let engine = component.engine();
    let ty = component.component_type();
    let imports = ty.imports(engine).map(|(name, _)| name);
    let exports = ty.exports(engine).map(|(name, _)| name);
    let version = |name: &str| {
        let (_, version) = name.strip_prefix("tollgate:policy/")?.split_once('@')?;
        (version != CONTRACT).then(|| version.to_owned())
    };
    let theirs = imports.chain(exports).find_map(version)?;
    Some(LoadError::Contract { theirs, ours: CONTRACT })
}
