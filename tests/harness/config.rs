//! Configurations of one upstream `app` and routes to it.

use std::fmt;

use crate::{BareOrigin, Origin};

/// A configuration with one route, for all requests, to an upstream `app`. What a test says of a table is TOML.
#[derive(Debug, Clone)]
pub struct Config {
    top: String,
    upstream: String,
    routes: Vec<Route>,
    tables: String,
}

#[derive(Debug, Clone, Default)]
struct Route {
    plugins: Vec<String>,
    keys: String,
}

impl Config {
    /// To this origin, or to these.
    pub fn to(endpoints: &(impl Endpoints + ?Sized)) -> Self {
        Self::to_list(&format!("{:?}", endpoints.urls()))
    }

    /// To the endpoints of an array in TOML.
    pub fn to_list(endpoints: &str) -> Self {
        Self {
            top: String::new(),
            upstream: format!("endpoints = {endpoints}\n"),
            routes: vec![Route::default()],
            tables: String::new(),
        }
    }

    /// Keys at the top of the file.
    pub fn top(mut self, keys: &str) -> Self {
        add(&mut self.top, keys);
        self
    }

    /// With an admin API.
    pub fn admin(self) -> Self {
        self.top("admin.address = \"127.0.0.1:0\"")
    }

    /// Keys of the upstream.
    pub fn upstream(mut self, keys: &str) -> Self {
        add(&mut self.upstream, keys);
        self
    }

    /// Keys of the last route.
    pub fn route(mut self, keys: &str) -> Self {
        add(&mut self.last().keys, keys);
        self
    }

    /// A further route, with these keys.
    pub fn another_route(mut self, keys: &str) -> Self {
        self.routes.push(Route::default());
        self.route(keys)
    }

    /// A plugin of the last route, with the keys of its table.
    pub fn plugin(mut self, name: &str, keys: &str) -> Self {
        self.last().plugins.push(name.to_owned());
        self.table(&format!("plugins.{name}"), keys)
    }

    /// Another table.
    pub fn table(mut self, name: &str, keys: &str) -> Self {
        add(&mut self.tables, &format!("[{name}]"));
        add(&mut self.tables, keys);
        self
    }

    /// A listener on a free port with these keys.
    pub fn listener(self, keys: &str) -> Self {
        let Self { tables, .. } = &self;
        Self { tables: format!("{tables}{}", crate::listener(keys)), ..self }
    }

    pub fn toml(&self) -> String {
        self.to_string()
    }

    fn last(&mut self) -> &mut Route {
        self.routes.last_mut().expect("there is a route from the beginning")
    }
}

fn add(text: &mut String, keys: &str) {
    text.push_str(keys);
    text.push('\n');
}

impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { top, upstream, routes, tables } = self;
        write!(formatter, "{top}[upstreams.app]\n{upstream}")?;
        for Route { plugins, keys } in routes {
            formatter.write_str("[[routes]]\nupstream = \"app\"\n")?;
            if !plugins.is_empty() {
                writeln!(formatter, "plugins = {plugins:?}")?;
            }
            formatter.write_str(keys)?;
        }
        formatter.write_str(tables)
    }
}

/// What requests are sent to.
pub trait Endpoints {
    fn urls(&self) -> Vec<String>;
}

impl Endpoints for Origin {
    fn urls(&self) -> Vec<String> {
        vec![self.url()]
    }
}

impl Endpoints for BareOrigin {
    fn urls(&self) -> Vec<String> {
        vec![self.url()]
    }
}

/// A URL.
impl Endpoints for str {
    fn urls(&self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Endpoints for String {
    fn urls(&self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<T: Endpoints + ?Sized> Endpoints for &T {
    fn urls(&self) -> Vec<String> {
        T::urls(self)
    }
}

impl<T: Endpoints> Endpoints for [T] {
    fn urls(&self) -> Vec<String> {
        self.iter().flat_map(Endpoints::urls).collect()
    }
}

impl<T: Endpoints, const N: usize> Endpoints for [T; N] {
    fn urls(&self) -> Vec<String> {
        self.as_slice().urls()
    }
}
