//! What does a configuration mean once it runs?
//!
//! A [`Snapshot`] is built from a configuration and the one before it. Names become places in lists, files
//! become code, and what is equal to what ran before is taken over as it is. Building changes nothing: if it
//! fails, there are [`Problems`] to show and what runs goes on.

mod builder;
mod building;
mod checks;
mod choosing;
mod compiling;
mod diagnosis;
mod error;
mod files;
mod forwards;
mod loaded;
mod loading;
mod progress;
mod settings;
mod shadows;
mod tested;

pub use builder::Builder;
pub use compiling::Unneeded;
pub use files::files_named_beside;
pub use loaded::{Candidate, Loaded, Origin};
pub use progress::{Loads, Refused, Stage, write_loads};
pub use tested::Tested;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use toml::Spanned;

use checks::Warning;
use diagnosis::nearest;
use loading::LeftOut;

use crate::{
    address::Address,
    cache::{Cache, Rules, policy::may_be_stored},
    config::{self, Config, HostPattern, Problem, Problems, Source},
    path,
    plugin::{Outcomes, RouteCalls, Shadow},
    route,
    telemetry::{PerWorker, traffic::RouteCounts},
    tls::{self, Origination, Termination},
    upstream::{self, Upstream},
};

/// A configuration that runs. Immutable; lists are addressed by place.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the snapshots of a process, from 1. One that serves just as the one before has its number.
    pub number: u64,
    pub config: Config,
    /// What was written.
    pub source: Source,
    pub table: route::Table,
    pub routes: Vec<Route>,
    pub upstreams: Vec<Target>,
    pub plugins: Vec<Loaded>,
    /// Candidates that are shown what plugins are shown.
    pub shadows: Vec<Arc<Shadow>>,
    /// The TLS of each listener that speaks it, in the order of the configuration.
    pub terminations: Vec<Option<Arc<Termination>>>,
    /// What routes that cache share.
    pub cache: Arc<Cache>,
    /// What no route needs and is not usable, by name, and why.
    pub not_loaded: Vec<(String, Refused)>,
    /// Plugins that nothing needs and that have still to be compiled, by name.
    pub untried: Vec<String>,
    /// Whether an upstream is told where clients have connected to.
    pub introduces_clients: bool,
    upstreams_by_name: HashMap<Arc<str>, usize>,
    /// For each plugin, the upstreams that it may send requests to besides the route's own.
    forwards: Vec<Vec<usize>>,
    /// Of requests that no route wanted.
    unrouted: Arc<PerWorker<RouteCounts>>,
    /// What was warned of, so that it is once.
    warnings: Vec<Warning>,
}

/// A route with its names resolved.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// A place in [`Snapshot::upstreams`].
    pub upstream: usize,
    /// The request hooks, in order.
    pub on_request: Vec<Step>,
    /// The response hooks, in order.
    pub on_response: Vec<Step>,
    /// Who is told of its requests when they have ended.
    pub on_complete: Arc<[Arc<Outcomes>]>,
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

/// A plugin on a route.
#[derive(Debug, Clone)]
pub struct Step {
    /// A place in [`Snapshot::plugins`].
    pub place: usize,
    /// What is counted of it here, and on a route of this name before.
    pub calls: Arc<PerWorker<RouteCalls>>,
    /// Who is shown the same: a place in [`Snapshot::shadows`].
    pub shadow: Option<usize>,
}

/// An upstream with its balancers resolved.
#[derive(Debug)]
pub struct Target {
    pub upstream: Arc<Upstream>,
    /// Places in [`Snapshot::plugins`], in the order in which they are asked.
    pub balancers: Vec<usize>,
}

fn is_same_list<T>(one: &[T], other: &[T], is_same: impl Fn(&T, &T) -> bool) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
}

impl Builder {
    /// Builds a snapshot. Compiles plugins, so it takes its time: not for a worker.
    pub fn build(
        &self,
        config: Config,
        source: &Source,
        previous: Option<&Snapshot>,
        unneeded: Unneeded,
    ) -> Result<Snapshot, Problems> {
        let mut problems = Vec::new();
        let mut left_out = LeftOut::default();
        let known = previous.map(|previous| &*previous.plugins);
        let plugins = self.plugins(&config, known, unneeded, &mut left_out, &mut problems);
        let LeftOut { not_loaded, untried } = left_out;
        let places: HashMap<&str, usize> =
            plugins.iter().enumerate().map(|(place, loaded)| (&*loaded.plugin.name, place)).collect();

        let known = previous.map_or(&[][..], |previous| &*previous.shadows);
        let shadows = self.shadows(&config, known, &plugins, &places, &mut problems);
        let upstreams = self.upstreams(&config, previous, &plugins, &places, &mut problems);
        let upstreams_by_name: HashMap<Arc<str>, usize> = upstreams
            .iter()
            .enumerate()
            .map(|(place, target)| (target.upstream.name.clone(), place))
            .collect();
        let forwards = forwards::granted(&config, &plugins, &upstreams_by_name, &mut problems);
        let (table, routes) =
            routes(&config, previous, &upstreams_by_name, &plugins, &places, &shadows, &mut problems);
        let terminations = self.terminations(&config, previous, &mut problems);
        checks::check(&config, source, &mut problems);
        if !problems.is_empty() {
            return Err(Problems::new(source.clone(), problems));
        }
        let warnings = checks::warnings(&config, &plugins, &forwards, &self.plugin_dir(&config));
        for warning in &warnings {
            if !previous.is_some_and(|previous| previous.warnings.iter().any(|said| said.is_same(warning))) {
                warning.log(source);
            }
        }
        // A version that is not used is no reason for another generation, if nothing else is new; nor is one that nothing
        // needs and that was left for later.
        let serves_as = |previous: &Snapshot| {
            let is_refused_anew = |loaded: &Loaded| {
                let known = previous.plugin(&loaded.plugin.name).and_then(|known| known.refused.as_ref());
                loaded
                    .refused
                    .as_ref()
                    .is_some_and(|refused| known.is_none_or(|known| known.at != refused.at))
            };
            let is_later =
                |loaded: &Loaded| previous.untried.iter().any(|name| **name == *loaded.plugin.name);
            let known: Vec<_> = previous.plugins.iter().filter(|loaded| !is_later(loaded)).collect();
            let serving: Vec<_> = plugins.iter().filter(|loaded| !is_later(loaded)).collect();
            previous.config == config
                && previous.source.text == source.text
                && (!previous.untried.is_empty() || plugins.iter().any(is_refused_anew))
                && is_same_list(&known, &serving, |one, other| one.is_same(other))
                && is_same_list(&previous.upstreams, &upstreams, |one, other| {
                    Arc::ptr_eq(&one.upstream, &other.upstream)
                })
                && is_same_list(&previous.shadows, &shadows, Arc::ptr_eq)
                && is_same_list(&previous.terminations, &terminations, |one, other| {
                    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
                })
        };
        let number = previous.map_or(1, |previous| previous.number + u64::from(!serves_as(previous)));
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
            untried,
            number,
            config,
            table,
            routes,
            upstreams,
            plugins,
            shadows,
            terminations,
            cache,
            upstreams_by_name,
            forwards,
            unrouted,
            warnings,
        })
    }

    /// Compiles what a snapshot has left for later, and keeps what came of it for the next one.
    pub fn try_unneeded(&self, snapshot: &Snapshot) {
        self.try_all(&snapshot.untried, &snapshot.config, &snapshot.plugins);
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
                    problems.push(problem.help(
                        "name one that can, such as `round-robin`; one of your own exports tollgate:policy/balance-hook",
                    ));
                } else if plugins[place].plugin.yields() {
                    let problem =
                        Problem::at(name.span(), "the calls of this plugin take turns, and a balancer's must not");
                    let table = name.get_ref();
                    problems.push(problem.help(format!("take `yields = true` out of [plugins.{table}]")));
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
}

impl Route {
    /// Its plugins, each hook by itself.
    fn steps(&self) -> impl Iterator<Item = &Step> + Clone {
        self.on_request.iter().chain(&self.on_response)
    }
}

impl Snapshot {
    /// What is counted of plugins on routes, by the names of both.
    pub fn plugin_calls(&self) -> BTreeMap<(&str, &str), &PerWorker<RouteCalls>> {
        let steps = self.routes.iter().flat_map(|route| route.steps().map(move |step| (route, step)));
        steps
            .map(|(route, step)| {
                let plugin = &self.plugins[step.place].plugin.name;
                ((&**plugin, &*route.name), &*step.calls)
            })
            .collect()
    }

    /// Whether a plugin may send a request of this route to this upstream; all of them by their places.
    pub fn may_forward(&self, plugin: usize, route: &Route, upstream: usize) -> bool {
        upstream == route.upstream || self.forwards[plugin].contains(&upstream)
    }

    /// Says which plugins serve that did not before, now that it is in force.
    pub fn announce(&self, before: Option<&Snapshot>, builder: &Builder) {
        for loaded in &self.plugins {
            let name = &*loaded.plugin.name;
            loaded.announce(before.and_then(|before| before.plugin(name)), &builder.loads, builder.warm);
        }
    }

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
        let problem = Problem::at(mode.span(), "only a Unix socket has a mode");
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
        // The same of one that came by TLS.
        (_, Some(hsts), None) if listener.trusted_proxies.is_empty() => problems.push(
            Problem::at(
                hsts.span(),
                "browsers believe this only where TLS is spoken (RFC 6797, section 7.2)",
            )
            .help("move it to the listener with `tls`, or name the proxies before this one that speak TLS: trusted-proxies = [\"10.0.0.0/8\"]"),
        ),
        _ => {}
    }
}

/// The problem of a lifetime for a status whose responses are not stored.
fn never_stored(route: &Spanned<config::Route>, cache: &config::RouteCache) -> Option<Problem> {
    let mut listed = cache.ttl.by_status.keys().chain(cache.force_ttl.by_status.keys());
    let is_never =
        |status: &u16| http::StatusCode::from_u16(*status).is_ok_and(|status| !may_be_stored(status));
    let status = listed.find(|status| is_never(status))?;
    let message = format!("a response with the status {status} is never stored, so it has no `ttl`");
    Some(Problem::at(route.span(), message).help("leave the status out of `ttl` and `force-ttl`"))
}

fn routes(
    config: &Config,
    previous: Option<&Snapshot>,
    upstreams: &HashMap<Arc<str>, usize>,
    plugins: &[Loaded],
    places: &HashMap<&str, usize>,
    shadows: &[Arc<Shadow>],
    problems: &mut Vec<Problem>,
) -> (route::Table, Vec<Route>) {
    let mut table = route::Table::default();
    let mut routes = Vec::new();
    // Routes of one name are counted as one.
    let known = previous.into_iter().flat_map(|previous| &previous.routes);
    let mut counts: HashMap<Arc<str>, Arc<PerWorker<RouteCounts>>> =
        known.clone().map(|route| (route.name.clone(), route.counts.clone())).collect();
    let known = known.flat_map(|route| route.steps().map(move |step| (route, step)));
    let mut calls: HashMap<(Arc<str>, Arc<str>), _> = known
        .filter_map(|(route, step)| {
            let plugin = &previous?.plugins[step.place].plugin.name;
            Some(((route.name.clone(), plugin.clone()), step.calls.clone()))
        })
        .collect();
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
        if let Some(cache) = &route.cache {
            problems.extend(never_stored(written, cache));
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
        let name: Arc<str> = route.name.clone().unwrap_or_else(|| format!("routes[{place}]")).into();
        let mut hooks = |name: &Spanned<String>| {
            // A plugin that is not there has been reported where it was to be loaded.
            let place = *places.get(name.get_ref().as_str())?;
            let hooks = plugins[place].hooks();
            if !hooks.are_for_routes() {
                let problem = Problem::at(name.span(), "this plugin has no hook for requests or responses");
                problems
                    .push(problem.help("a plugin that balances is named by an upstream: balance = \"...\""));
            }
            Some((place, hooks))
        };
        let named: Vec<_> = route.plugins.iter().filter_map(&mut hooks).collect();
        // Those that are on all routes come first, where the route does not put them elsewhere.
        let everywhere = plugins.iter().enumerate().filter(|(place, loaded)| {
            loaded.is_on_all_routes() && named.iter().all(|(named, _)| named != place)
        });
        let everywhere = everywhere.map(|(place, loaded)| (place, loaded.hooks()));
        let hooks: Vec<_> = everywhere.chain(named.iter().copied()).collect();
        let steps: Vec<_> = hooks
            .iter()
            .map(|(place, hooks)| {
                let plugin = &plugins[*place].plugin.name;
                let calls = calls.entry((name.clone(), plugin.clone())).or_default().clone();
                let shadow = route.shadow.as_ref().map(Spanned::get_ref);
                let shadow = shadow.filter(|shadow| shadow.plugin == **plugin);
                let shadow = shadow.and_then(|wanted| {
                    shadows
                        .iter()
                        .position(|shadow| *shadow.of == *wanted.plugin && shadow.file == wanted.file)
                });
                (Step { place: *place, calls, shadow }, hooks)
            })
            .collect();
        if let Some(shadow) = &route.shadow
            && steps.iter().all(|(step, _)| *plugins[step.place].plugin.name != *shadow.get_ref().plugin)
        {
            let problem = Problem::at(shadow.span(), "this route has no plugin of this name");
            problems
                .push(problem.help("name one of those in `plugins`, and a file: \"limiter@candidate.wasm\""));
        }
        let counts = counts.entry(name.clone()).or_default().clone();
        routes.push(Route {
            name,
            counts,
            upstream: upstream.unwrap_or_default(),
            is_repeatable: route.repeatable,
            on_request: steps
                .iter()
                .filter(|(_, hooks)| hooks.request)
                .map(|(step, _)| step.clone())
                .collect(),
            on_response: steps
                .iter()
                .rev()
                .filter(|(_, hooks)| hooks.response)
                .map(|(step, _)| step.clone())
                .collect(),
            on_complete: steps
                .iter()
                .filter(|(_, hooks)| hooks.complete)
                .map(|(step, _)| plugins[step.place].plugin.outcomes().clone())
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
        Some(written) if written.get_ref().split('/').any(|segment| matches!(segment, "*" | "**")) => {
            let prefix =
                written.get_ref().split("/*").next().filter(|prefix| !prefix.is_empty()).unwrap_or("/");
            problems.push(
                Problem::at(
                    written.span(),
                    "a route matches a path and all below it, and `*` would stand for itself",
                )
                .help(format!("write \"{prefix}\"")),
            );
            return None;
        }
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
