//! What does a configuration mean once it runs?
//!
//! A [`Snapshot`] is built from a configuration and the one before it. Names become places in lists, files
//! become code, and what is equal to what ran before is taken over as it is. Building changes nothing: if it
//! fails, there are [`Problems`] to show and what runs goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use crate::{
    address::Address,
    cache::{Cache, Rules},
    config::{self, Config, HostPattern, Problem, Problems, Source},
    path,
    plugin::{
        Capabilities, Capability, Code, Engine, Hook, LoadError, Plugin, SecretError, StartError, shipped,
    },
    route,
    telemetry::{PerWorker, traffic::RouteCounts, with_sources},
    tls::{self, Origination, Termination},
    upstream::{self, Origins, Upstream},
};

/// A configuration that runs. Immutable; lists are addressed by place.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the snapshots of a process, from 1.
    pub number: u64,
    pub config: Config,
    /// What was written.
    pub source: Source,
    pub table: route::Table,
    pub routes: Vec<Route>,
    pub upstreams: Vec<Target>,
    pub plugins: Vec<Loaded>,
    /// The TLS of each listener that speaks it, in the order of the configuration.
    pub terminations: Vec<Option<Arc<Termination>>>,
    /// What routes that cache share.
    pub cache: Arc<Cache>,
    /// Files that no route needs and that are no plugins, by name, and why.
    pub not_loaded: Vec<(String, String)>,
    /// Whether an upstream is told where clients have connected to.
    pub introduces_clients: bool,
    upstreams_by_name: HashMap<Arc<str>, usize>,
    /// Of requests that no route wanted.
    unrouted: Arc<PerWorker<RouteCounts>>,
}

/// A route with its names resolved.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// A place in [`Snapshot::upstreams`].
    pub upstream: usize,
    /// Places in [`Snapshot::plugins`], in the order of their request hooks.
    pub on_request: Vec<usize>,
    /// The same for response hooks.
    pub on_response: Vec<usize>,
    pub compress: Option<config::Compress>,
    /// What is counted of its requests, and of those of a route of this name before.
    counts: Arc<PerWorker<RouteCounts>>,
    /// Protocols that a connection may go on in.
    pub upgrades: Vec<config::UpgradeProtocol>,
    /// Whether a request of any method may be sent twice.
    pub is_repeatable: bool,
    /// Whether and how responses are cached.
    pub cache: Option<Rules>,
}

/// An upstream with its balancers resolved.
#[derive(Debug)]
pub struct Target {
    pub upstream: Arc<Upstream>,
    /// Places in [`Snapshot::plugins`], in the order in which they are asked.
    pub balancers: Vec<usize>,
}

/// A plugin, and where its code came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub plugin: Arc<Plugin>,
    pub origin: Origin,
    /// Where it may send requests.
    pub origins: Arc<Origins>,
    /// Why a newer version was not put in its place.
    pub refused: Option<String>,
    settings: config::Plugin,
}

/// Where the code of a plugin came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// It is part of the executable.
    Shipped,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Shipped => formatter.write_str("the executable"),
        }
    }
}

/// What a snapshot is built with, besides the configuration.
#[derive(Debug)]
pub struct Builder {
    pub engine: Arc<Engine>,
    /// What relative paths in the configuration are relative to.
    pub folder: PathBuf,
    /// Where certificates that the proxy makes itself are kept between starts; nowhere if absent.
    pub kept: Option<PathBuf>,
    /// Instances of each plugin to have ready.
    pub warm: usize,
}

/// Why a plugin could not be made.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    #[error("there is no file {} and no plugin of this name is shipped", .0.display())]
    Missing(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not usable: {}", path, with_sources(source))]
    Load { path: String, source: LoadError },
    #[error(
        "the plugin imports `tollgate:policy/{interface}`, which it has not been granted: \
         write `{line}` under [plugins.{name}]"
    )]
    NotGranted { name: String, interface: &'static str, line: &'static str },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{}", .0.message)]
    Origin(Problem),
    #[error("the plugin {}", with_sources(.0))]
    Start(#[from] StartError),
}

impl Builder {
    /// Builds a snapshot. Compiles plugins, so it takes its time: not for a worker.
    pub fn build(
        &self,
        config: Config,
        source: &Source,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, Problems> {
        let mut problems = Vec::new();
        let mut not_loaded = Vec::new();
        let plugins = self.plugins(&config, previous, &mut not_loaded, &mut problems);
        let places: HashMap<&str, usize> =
            plugins.iter().enumerate().map(|(place, loaded)| (&*loaded.plugin.name, place)).collect();

        let upstreams = self.upstreams(&config, previous, &plugins, &places, &mut problems);
        let upstreams_by_name: HashMap<Arc<str>, usize> = upstreams
            .iter()
            .enumerate()
            .map(|(place, target)| (target.upstream.name.clone(), place))
            .collect();
        let (table, routes) = routes(&config, previous, &upstreams_by_name, &plugins, &places, &mut problems);
        let terminations = self.terminations(&config, previous, &mut problems);
        if config.listeners.is_empty() {
            problems.push(
                Problem::general("there is no listener")
                    .help("add one: [[listeners]] with address = \"127.0.0.1:8080\""),
            );
        }
        problems.extend(config.admin.as_ref().and_then(unguarded));
        if !problems.is_empty() {
            return Err(Problems::new(source.clone(), problems));
        }
        let number = previous.map_or(1, |previous| previous.number + 1);
        let unrouted = previous.map(|previous| previous.unrouted.clone()).unwrap_or_default();
        let cache = match previous.map(|previous| &previous.cache) {
            Some(cache) if cache.is_same(&config.cache) => cache.clone(),
            Some(cache) => Arc::new(cache.resized(&config.cache, &self.folder)),
            None => Arc::new(Cache::new(&config.cache, &self.folder)),
        };
        Ok(Snapshot {
            source: source.clone(),
            introduces_clients: config.upstreams.values().any(|upstream| upstream.proxy_protocol),
            not_loaded,
            number,
            config,
            table,
            routes,
            upstreams,
            plugins,
            terminations,
            cache,
            upstreams_by_name,
            unrouted,
        })
    }

    /// Where the files of plugins are.
    pub fn plugin_dir(&self, config: &Config) -> PathBuf {
        self.folder.join(&config.plugin_dir)
    }

    /// What every listener with TLS needs for it.
    fn terminations(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Option<Arc<Termination>>> {
        let folders = tls::Folders { config: &self.folder, kept: self.kept.as_deref() };
        let mut load = |listener: &Spanned<config::Listener>| {
            let listener = listener.get_ref();
            says_what_it_can_keep(listener, problems);
            let written = listener.tls.as_ref()?;
            let known = previous
                .iter()
                .flat_map(|previous| previous.terminations.iter().flatten())
                .find(|known| known.is_of(written.get_ref(), listener.http2));
            let loaded = Termination::load(written, listener.http2, &folders, known);
            let known = known.map(|known| (known, format!("the listener {}", listener.address)));
            unless_only_files_changed(loaded, known, problems)
        };
        config.listeners.iter().map(&mut load).collect()
    }

    fn upstreams(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        plugins: &[Loaded],
        places: &HashMap<&str, usize>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Target> {
        let mut targets = Vec::new();
        for (name, settings) in &config.upstreams {
            if settings.endpoints.is_empty() && settings.has_no_others() {
                let problem = Problem::at(name.span(), "the upstream has no endpoints");
                problems.push(problem.help(
                    "write endpoints = [\"http://127.0.0.1:8001\"], or say with `discover` or `register` where \
                     others come from",
                ));
            }
            let balancers = settings.balance.iter().filter_map(|name| {
                // A plugin that is not there has been reported where it was to be loaded.
                let place = *places.get(name.get_ref().as_str())?;
                let code = &plugins[place].plugin.code;
                if !code.hooks().balance {
                    let problem = Problem::at(name.span(), "this plugin has no `pick`, so it cannot balance");
                    problems.push(problem.help("a balancer exports tollgate:policy/balance-hook"));
                } else if code.waits() {
                    let problem = Problem::at(name.span(), "this plugin may wait, and a balancer must not");
                    problems.push(problem.help(
                        "it imports tollgate:policy/http-client or tollgate:policy/body: have another plugin do \
                         that, which tells this one by a note or by the store",
                    ));
                }
                Some(place)
            });
            let balancers = balancers.collect();
            let known =
                previous.and_then(|previous| Some(&previous.upstreams[previous.upstream(name.get_ref())?]));
            let known_tls = known.map(|known| known.upstream.tls().clone()).unwrap_or_default();
            let tls = upstream::Tls {
                endpoints: self.origination(name, settings, known_tls.endpoints.as_ref(), problems),
                sources: self.origination_of_sources(name, settings, known_tls.sources.as_ref(), problems),
            };
            let upstream = match known {
                Some(known) if known.upstream.is_same(settings, &tls) => known.upstream.clone(),
                known => {
                    let known = known.map(|known| &*known.upstream);
                    Upstream::new(name.get_ref().as_str().into(), settings, tls, known)
                }
            };
            targets.push(Target { upstream, balancers });
        }
        targets
    }

    /// What an upstream with endpoints by TLS needs for them.
    fn origination(
        &self,
        name: &Spanned<String>,
        upstream: &config::Upstream,
        known: Option<&Arc<Origination>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Origination>> {
        let mut hosts = upstream.endpoints.iter().filter(|endpoint| endpoint.is_https).peekable();
        if hosts.peek().is_none() {
            // No problem: it may be that others come.
            if upstream.tls.is_some() && upstream.has_no_others() {
                let upstream = name.get_ref();
                tracing::warn!(upstream, "no endpoint begins with `https://`, so `tls` changes nothing");
            }
            if !upstream.may_need_tls() {
                return None;
            }
        }
        let default = config::UpstreamTls::default();
        let settings = upstream.tls.as_ref().map_or(&default, |tls| tls.get_ref());
        let known = known.filter(|known| known.is_of(settings));
        let loaded = Origination::load(name.get_ref(), settings, &self.folder, known);
        let known = known.map(|known| (known, format!("the upstream {}", name.get_ref())));
        let tls = unless_only_files_changed(loaded, known, problems)?;
        if hosts.any(|endpoint| tls.server_name(endpoint.authority.host()).is_none()) {
            let problem = Problem::at(name.span(), "the host of an endpoint cannot be asked for by TLS");
            problems.push(problem.help("say what to ask for: tls = { server-name = \"app.internal\" }"));
        }
        Some(tls)
    }

    /// What is needed for those who are asked by TLS for the endpoints of an upstream.
    fn origination_of_sources(
        &self,
        name: &Spanned<String>,
        upstream: &config::Upstream,
        known: Option<&Arc<Origination>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Origination>> {
        let discover = upstream.discover.as_ref()?;
        if !discover.needs_tls() {
            if let Some(tls) = &discover.tls {
                let problem = Problem::at(tls.span(), "nobody is asked for endpoints by TLS");
                problems.push(problem.help("begin the URLs of `servers` with https://, or leave `tls` out"));
            }
            return None;
        }
        let default = config::UpstreamTls::default();
        let settings = discover.tls.as_ref().map_or(&default, |tls| tls.get_ref());
        let known = known.filter(|known| known.is_of(settings));
        let loaded = Origination::load(name.get_ref(), settings, &self.folder, known);
        let known = known.map(|known| (known, format!("the sources of the upstream {}", name.get_ref())));
        unless_only_files_changed(loaded, known, problems)
    }

    fn plugins(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        not_loaded: &mut Vec<(String, String)>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Loaded> {
        let needed = needed_plugins(config);
        let folder = self.plugin_dir(config);
        let mut names: BTreeSet<&str> = needed.keys().copied().collect();
        let dropped = dropped_files(&folder);
        let tables: HashMap<&str, &config::Plugin> =
            config.plugins.iter().map(|(name, table)| (name.get_ref().as_str(), table)).collect();
        // A file that a table names under another name is not a plugin of its own name, too.
        let claimed: BTreeSet<&str> =
            tables.values().filter_map(|table| table.file.as_deref()).map(stem).collect();
        names.extend(dropped.iter().map(String::as_str).filter(|name| !claimed.contains(name)));

        let mut loaded = Vec::new();
        for name in names {
            let settings = tables.get(name).copied().cloned().unwrap_or_default();
            let known = previous.and_then(|previous| previous.plugin(name));
            match (self.plugin(name, &settings, &folder, known), needed.get(name)) {
                (Ok(plugin), _) => loaded.push(plugin),
                // Only the file has changed, or gone: what was loaded from it stays in force.
                (Err(error), _) if let Some(known) = known.filter(|known| known.settings == settings) => {
                    tracing::warn!(plugin = name, %error, "new version not used, the loaded one stays in force");
                    loaded.push(Loaded { refused: Some(error.to_string()), ..known.clone() });
                }
                (Err(error), Some(span)) => {
                    problems
                        .push(Problem::at(error.place().unwrap_or_else(|| span.clone()), error.to_string()));
                }
                (Err(error), None) => {
                    tracing::warn!(plugin = name, %error, "not loaded; no route needs it");
                    not_loaded.push((name.to_owned(), error.to_string()));
                }
            }
        }
        loaded
    }

    fn plugin(
        &self,
        name: &str,
        settings: &config::Plugin,
        folder: &Path,
        known: Option<&Loaded>,
    ) -> Result<Loaded, PluginError> {
        let file = stem(settings.file.as_deref().unwrap_or(name));
        let path = folder.join(format!("{file}.wasm"));
        let (bytes, origin) = match fs::read(&path) {
            Ok(bytes) => (bytes.into(), Origin::File(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // What ran from a file does not turn into another plugin because the file has gone.
                let was_file = known.is_some_and(|known| known.origin == Origin::File(path.clone()));
                let shipped = shipped::find(file).filter(|_| !was_file);
                (shipped.ok_or(PluginError::Missing(path))?.into(), Origin::Shipped)
            }
            Err(source) => return Err(PluginError::Read { path, source }),
        };
        let bytes: std::borrow::Cow<'_, [u8]> = bytes;
        let code = self.engine.load(&bytes).map_err(|source| {
            let path = match &origin {
                Origin::File(path) => path.display().to_string(),
                Origin::Shipped => format!("the shipped `{file}`"),
            };
            PluginError::Load { path, source }
        })?;
        check_grants(name, &code, &settings.grants)?;
        let known_origins = known.map(|known| &*known.origins);
        let origins = Origins::new(name, &settings.grants.http, &self.folder, known_origins).map_err(
            |mut problems| {
                let general = || Problem::general("an origin cannot be reached by TLS as it is written");
                PluginError::Origin(if problems.is_empty() { general() } else { problems.swap_remove(0) })
            },
        )?;
        let known = known.map(|known| &known.plugin);
        let before = known.map(|known| known.capabilities());
        let capabilities = Capabilities::granted(&settings.grants, &self.folder, before)?;
        let plugin = match known {
            Some(known) if known.is_same(&code, settings, &capabilities) => known.clone(),
            _ => {
                warn_of_unused(name, &code, &settings.grants);
                if code.exports(Hook::OnTick) && settings.tick.is_none() {
                    tracing::warn!(
                        plugin = name,
                        "has `on-tick`, which is not called: write `tick = \"10s\"`"
                    );
                }
                if settings.tick.is_some() && !code.exports(Hook::OnTick) {
                    tracing::warn!(plugin = name, "is to tick, and has no `on-tick`");
                }
                if settings.fail == config::Failure::Open {
                    tracing::warn!(
                        plugin = name,
                        "fails open: when it cannot decide, requests pass without it"
                    );
                }
                let known = known.map(|known| &**known);
                let warm = self.warm + usize::from(settings.tick.is_some());
                let plugin = Plugin::new(name.into(), code, settings, capabilities, known, warm)?;
                tracing::info!(plugin = name, digest = %plugin.code.digest(), "plugin loaded");
                Arc::new(plugin)
            }
        };
        Ok(Loaded { plugin, origin, origins: origins.into(), refused: None, settings: settings.clone() })
    }
}

impl Loaded {
    /// Between two ticks, if it is to tick.
    pub fn tick(&self) -> Option<Duration> {
        self.settings.tick.as_ref().map(|tick| tick.get_ref().get())
    }
}

impl PluginError {
    /// Where in the configuration it is, if that is not where the plugin is named.
    fn place(&self) -> Option<Range<usize>> {
        match self {
            Self::Secret(error) => Some(error.place.clone()),
            Self::Origin(problem) => problem.span.clone(),
            Self::Missing(_)
            | Self::Read { .. }
            | Self::Load { .. }
            | Self::NotGranted { .. }
            | Self::Start(_) => None,
        }
    }
}

/// A component gets what its table grants, and one that asks for more is not run.
fn check_grants(name: &str, code: &Code, grants: &config::Grants) -> Result<(), PluginError> {
    match code.imports().iter().find(|capability| !capability.is_in(grants)) {
        None => Ok(()),
        Some(capability) => Err(PluginError::NotGranted {
            name: name.to_owned(),
            interface: capability.interface(),
            line: capability.line(),
        }),
    }
}

fn warn_of_unused(name: &str, code: &Code, grants: &config::Grants) {
    let is_unused =
        |capability: &Capability| capability.is_in(grants) && !code.imports().contains(capability);
    for capability in Capability::ALL.into_iter().filter(is_unused) {
        let interface = capability.interface();
        tracing::warn!(plugin = name, interface, "granted, and the plugin does not import it");
    }
}

impl Snapshot {
    /// The place of the upstream of this name.
    pub fn upstream(&self, name: &str) -> Option<usize> {
        self.upstreams_by_name.get(name).copied()
    }

    /// What is counted of the requests of a route: of its place, or none if no route wanted them.
    pub fn counts(&self, route: Option<usize>) -> &Arc<PerWorker<RouteCounts>> {
        route.map_or(&self.unrouted, |place| &self.routes[place].counts)
    }

    /// What is counted of requests, by the names of routes; the empty name is for what no route wanted.
    pub fn traffic(&self) -> Vec<(&str, &PerWorker<RouteCounts>)> {
        let routes = self.routes.iter().map(|route| (&*route.name, &*route.counts));
        let by_name: BTreeMap<_, _> = routes.chain([("", &*self.unrouted)]).collect();
        by_name.into_iter().collect()
    }

    /// The plugin of this name.
    pub fn plugin(&self, name: &str) -> Option<&Loaded> {
        self.plugins.iter().find(|loaded| &*loaded.plugin.name == name)
    }
}

/// The problem of an admin API that anybody in the network could use.
fn unguarded(admin: &Spanned<config::Admin>) -> Option<Problem> {
    let config::Admin { address, token } = admin.get_ref();
    (token.is_none() && !address.ip().to_canonical().is_loopback()).then(|| {
        Problem::at(admin.span(), "the admin API can be reached from other machines, and there is no token")
            .help("add token = \"${TOLLGATE_ADMIN_TOKEN}\", or write address = \"127.0.0.1:9901\"")
    })
}

/// The name of a plugin's file without its ending.
fn stem(file: &str) -> &str {
    file.strip_suffix(".wasm").unwrap_or(file)
}

/// The plugins that the configuration names, and where it does so first.
fn needed_plugins(config: &Config) -> BTreeMap<&str, Range<usize>> {
    let tables = config.plugins.keys();
    let routes = config.routes.iter().flat_map(|route| &route.get_ref().plugins);
    let balancers = config.upstreams.values().flat_map(|upstream| &upstream.balance);
    let mut needed = BTreeMap::new();
    for name in tables.chain(routes).chain(balancers) {
        needed.entry(name.get_ref().as_str()).or_insert_with(|| name.span());
    }
    needed
}

/// The plugins in the drop folder, by name. A folder that is not there is an empty one.
fn dropped_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| name.strip_suffix(".wasm").map(str::to_owned))
        .collect()
}

/// What was loaded before stays in force where the settings are as before and only their files are bad.
fn unless_only_files_changed<T>(
    loaded: Result<Arc<T>, Vec<Problem>>,
    known: Option<(&Arc<T>, String)>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<T>> {
    match (loaded, known) {
        (Ok(loaded), _) => Some(loaded),
        (Err(faults), Some((known, of))) => {
            for fault in faults {
                let error = fault.message;
                tracing::warn!(of, error, "new certificates not used, the loaded ones stay in force");
            }
            Some(known.clone())
        }
        (Err(faults), None) => {
            problems.extend(faults);
            None
        }
    }
}

/// Where every request comes by TLS there is nothing to redirect, and where none does nothing to promise.
fn says_what_it_can_keep(listener: &config::Listener, problems: &mut Vec<Problem>) {
    if let (Some(mode), Address::Ip(_)) = (&listener.mode, &listener.address) {
        let problem = Problem::at(mode.span(), "only a socket of Unix has a mode");
        problems.push(problem.help("leave it out, or listen on `unix:` and a path"));
    }
    if let Some(key) = listener.proxy_protocol.as_ref().filter(|is_on| *is_on.get_ref())
        && listener.trusted_proxies.is_empty()
    {
        let problem = Problem::at(key.span(), "nobody is trusted to say whose connections they are");
        problems.push(problem.help("name those who connect: trusted-proxies = [\"10.0.0.0/8\"]"));
    }
    match (&listener.redirect_to_https, &listener.hsts, &listener.tls) {
        // A proxy that is believed may say of its own client that it came in clear.
        (Some(redirect), _, Some(_)) if listener.trusted_proxies.is_empty() => problems.push(
            Problem::at(redirect.span(), "every request to this listener comes by TLS already")
                .help("move it to the listener without `tls`"),
        ),
        (_, Some(hsts), None) => problems.push(
            Problem::at(
                hsts.span(),
                "browsers believe this only where TLS is spoken (RFC 6797, section 7.2)",
            )
            .help("move it to the listener with `tls`"),
        ),
        _ => {}
    }
}

fn routes(
    config: &Config,
    previous: Option<&Snapshot>,
    upstreams: &HashMap<Arc<str>, usize>,
    plugins: &[Loaded],
    places: &HashMap<&str, usize>,
    problems: &mut Vec<Problem>,
) -> (route::Table, Vec<Route>) {
    let mut table = route::Table::default();
    let mut routes = Vec::new();
    // Routes of one name are counted as one.
    let known = previous.into_iter().flat_map(|previous| &previous.routes);
    let mut counts: HashMap<Arc<str>, Arc<PerWorker<RouteCounts>>> =
        known.map(|route| (route.name.clone(), route.counts.clone())).collect();
    for (place, written) in config.routes.iter().enumerate() {
        let route = written.get_ref();
        if let Some(rule) = rule(&route.matches, problems)
            && let Err(other) = table.insert(rule, place)
        {
            problems.push(
                Problem::at(
                    written.span(),
                    format!("routes[{other}] matches the same requests and comes first"),
                )
                .help("make them differ in host, path, methods or headers, or remove one"),
            );
        }
        let upstream = upstreams.get(route.upstream.get_ref().as_str()).copied();
        if upstream.is_none() {
            let problem = Problem::at(route.upstream.span(), "there is no such upstream");
            problems.push(problem.help(nearest(
                &route.upstream,
                upstreams.keys().map(|name| &**name),
                "upstreams",
            )));
        }
        let mut hooks = |name: &Spanned<String>| {
            // A plugin that is not there has been reported where it was to be loaded.
            let place = *places.get(name.get_ref().as_str())?;
            let hooks = plugins[place].plugin.code.hooks();
            if !hooks.request && !hooks.response {
                let problem = Problem::at(name.span(), "this plugin has no hook for requests or responses");
                problems
                    .push(problem.help("a plugin that balances is named by an upstream: balance = \"...\""));
            }
            Some((place, hooks))
        };
        let hooks: Vec<_> = route.plugins.iter().filter_map(&mut hooks).collect();
        let name: Arc<str> = route.name.clone().unwrap_or_else(|| format!("routes[{place}]")).into();
        let counts = counts.entry(name.clone()).or_default().clone();
        routes.push(Route {
            name,
            counts,
            upstream: upstream.unwrap_or_default(),
            is_repeatable: route.repeatable,
            on_request: hooks.iter().filter(|(_, hooks)| hooks.request).map(|(place, _)| *place).collect(),
            on_response: hooks
                .iter()
                .rev()
                .filter(|(_, hooks)| hooks.response)
                .map(|(place, _)| *place)
                .collect(),
            upgrades: route.upgrades.clone(),
            compress: route.compress.clone(),
            cache: route.cache.as_ref().map(Rules::new),
        });
    }
    (table, routes)
}

fn rule(matches: &config::Match, problems: &mut Vec<Problem>) -> Option<route::Match> {
    let path = match &matches.path {
        None => String::new(),
        Some(written) => match path::canonical(written.get_ref()) {
            Ok(path) if !written.get_ref().contains('?') => path.into_owned(),
            Ok(_) => {
                problems.push(Problem::at(written.span(), "a route matches paths, and this holds a query"));
                return None;
            }
            Err(error) => {
                problems.push(Problem::at(written.span(), error.to_string()));
                return None;
            }
        },
    };
    let host = match &matches.host {
        None => route::Host::Any,
        Some(HostPattern::Exact(name)) => route::Host::Exact(name.clone()),
        Some(HostPattern::Below(name)) => route::Host::Below(name.clone()),
    };
    let headers = matches.headers.iter().map(|(name, value)| {
        let name = name.parse().expect("names were checked when they were read");
        (name, value.clone())
    });
    Some(route::Match { host, path, methods: matches.methods.clone(), headers: headers.collect() })
}

/// A hint at what was meant.
fn nearest<'a>(written: &Spanned<String>, known: impl Iterator<Item = &'a str>, table: &str) -> String {
    let written = written.get_ref();
    let near = known
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("define it in a table of its own: [{table}.<name>]"),
    }
}
