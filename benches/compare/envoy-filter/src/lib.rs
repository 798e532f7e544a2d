//! The key check that every scripted subject of the benchmark performs, as a proxy-wasm filter.
//!
//! `x-api-key` is looked up in a table of keys. A known one is replaced by `x-consumer` with its tenant;
//! anything else is answered with 401. The table comes as the filter's configuration, a line for each
//! key: the key, a space, the tenant.

use std::{collections::HashMap, rc::Rc};

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

type Tenants = HashMap<Vec<u8>, String>;

/// One for each of Envoy's workers.
#[derive(Default)]
struct Root {
    tenants: Rc<Tenants>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let Some(text) = self.get_plugin_configuration().and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            return false;
        };
        let pairs = text.lines().map(|line| line.split_once(' '));
        let tenants: Option<Tenants> = pairs
            .map(|pair| pair.map(|(key, tenant)| (key.as_bytes().to_vec(), tenant.to_owned())))
            .collect();
        match tenants {
            Some(tenants) => {
                self.tenants = Rc::new(tenants);
                true
            }
            None => false,
        }
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Gate { tenants: Rc::clone(&self.tenants) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One for each request.
struct Gate {
    tenants: Rc<Tenants>,
}

impl Context for Gate {}

impl HttpContext for Gate {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let key = self.get_http_request_header_bytes("x-api-key");
        match key.and_then(|key| self.tenants.get(&key)) {
            Some(tenant) => {
                self.set_http_request_header("x-consumer", Some(tenant));
                self.set_http_request_header("x-api-key", None);
                Action::Continue
            }
            None => {
                self.send_http_response(401, Vec::new(), None);
                Action::Pause
            }
        }
    }
}
