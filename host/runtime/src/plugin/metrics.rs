//! What does the outside get to know of what is counted of plugins?

use std::{collections::BTreeMap, time::Duration};

use super::{
    configured::Plugin,
    counts::{FailureKind, Hook, MetricKind, RouteCalls},
};
use crate::telemetry::{Distribution, Page, PerWorker};

impl Plugin {
    /// Calls of a hook since the process started, by all workers.
    pub fn calls(&self, hook: Hook) -> u64 {
        self.counts().sum(|part| &part.calls[hook as usize])
    }

    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.counts().sum(|part| &part.failures[kind as usize])
    }

    /// Calls on the offload threads of workers, since they take long.
    pub fn offloaded(&self) -> u64 {
        self.counts().sum(|part| &part.offloaded)
    }

    /// Instances that had done their service and made room for fresh ones.
    pub fn recycled(&self) -> u64 {
        self.counts().sum(|part| &part.recycled)
    }

    /// How long calls took. Of many calls, some stand for others.
    pub fn durations(&self) -> Distribution {
        Distribution::of(self.counts().parts().map(|part| &part.durations))
    }

    /// The part of that in which it computed.
    pub fn computed(&self) -> Duration {
        let waited = self.counts().sum(|part| &part.waited);
        self.durations().sum().saturating_sub(Duration::from_nanos(waited))
    }
}

/// How long calls take that are told apart: from a microsecond to half a second.
const OCTAVES: std::ops::Range<usize> = 1..23;

/// Writes the families of plugins.
pub fn write_plugins<'a>(page: &mut Page, plugins: impl Iterator<Item = &'a Plugin> + Clone) {
    page.counter("tollgate_plugin_calls_total", "Calls of hooks.", |family| {
        for plugin in plugins.clone() {
            for hook in Hook::ALL {
                family.row(&[("plugin", &plugin.name), ("hook", hook.name())], plugin.calls(hook));
            }
        }
    });
    let help = "Calls on the offload threads of workers, since they take long.";
    page.counter("tollgate_plugin_offloaded_calls_total", help, |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.offloaded());
        }
    });
    page.counter("tollgate_plugin_failures_total", "Calls that brought no verdict.", |family| {
        for plugin in plugins.clone() {
            for kind in FailureKind::ALL {
                family.row(&[("plugin", &plugin.name), ("kind", kind.name())], plugin.failures(kind));
            }
        }
    });
    let help = "Time of calls; of many, one in eight is taken and stands for eight.";
    page.histogram("tollgate_plugin_call_duration_seconds", help, |family| {
        for plugin in plugins.clone() {
            family.distribution(&[("plugin", &plugin.name)], &plugin.durations(), OCTAVES);
        }
    });
    let help = "The part of that in which it computed and did not wait.";
    page.counter("tollgate_plugin_cpu_seconds_total", help, |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.computed().as_secs_f64());
        }
    });
    page.gauge(
        "tollgate_plugin_breakers_open",
        "Workers that do not ask it, because it keeps failing or takes the time of others.",
        |family| {
            for plugin in plugins.clone() {
                family.row(&[("plugin", &plugin.name)], plugin.open_breakers());
            }
        },
    );
    let help = "How often a worker has stopped to ask it because it kept failing.";
    page.counter("tollgate_plugin_breaker_opened_total", help, |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.breaker_opened());
        }
    });
    let completing = plugins.clone().filter(|plugin| plugin.code.exports(Hook::OnComplete));
    page.counter("tollgate_plugin_outcomes_total", "Requests that have ended, to be told to it.", |family| {
        for plugin in completing {
            family.row(&[("plugin", &plugin.name), ("outcome", "told")], plugin.outcomes().delivered());
            family.row(&[("plugin", &plugin.name), ("outcome", "dropped")], plugin.outcomes().dropped());
        }
    });
    page.gauge("tollgate_plugin_memory_bytes", "Memory of its instances.", |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.memory());
        }
    });
    page.gauge("tollgate_plugin_instances", "Instances there are.", |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.instances());
        }
    });
    let help = "Bytes of replies and bodies that it has made and that are not sent yet.";
    page.gauge("tollgate_plugin_unsent_bytes", help, |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.unsent());
        }
    });
    let help = "Lines of it that were left out of the log, since it logs more than `limits.log-rate`.";
    page.counter("tollgate_plugin_log_lines_dropped_total", help, |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.lines_left_out());
        }
    });
    let help = "Instances that had done their service and made room for fresh ones.";
    page.counter("tollgate_plugin_recycled_total", help, |family| {
        for plugin in plugins.clone() {
            family.row(&[("plugin", &plugin.name)], plugin.recycled());
        }
    });
    write_custom(page, plugins);
}

/// Writes what is counted of plugins on routes, by the names of both.
pub fn write_on_routes(page: &mut Page, calls: &BTreeMap<(&str, &str), &PerWorker<RouteCalls>>) {
    page.counter("tollgate_plugin_route_calls_total", "Calls of hooks for requests of a route.", |family| {
        for ((plugin, route), calls) in calls {
            family.row(&[("plugin", plugin), ("route", route)], calls.sum(|part| &part.calls));
        }
    });
    page.counter("tollgate_plugin_route_failures_total", "Those that brought no verdict.", |family| {
        for ((plugin, route), calls) in calls {
            for kind in FailureKind::ALL {
                let labels = [("plugin", *plugin), ("route", *route), ("kind", kind.name())];
                family.row(&labels, calls.sum(|part| part.failures(kind)));
            }
        }
    });
    let help = "Time of those; of many, one in eight is taken and stands for eight.";
    page.histogram("tollgate_plugin_route_call_duration_seconds", help, |family| {
        for ((plugin, route), calls) in calls {
            let durations = Distribution::of(calls.parts().map(|part| &part.durations));
            family.distribution(&[("plugin", plugin), ("route", route)], &durations, OCTAVES);
        }
    });
    let help = "The part of that in which the plugin computed and did not wait.";
    page.counter("tollgate_plugin_route_cpu_seconds_total", help, |family| {
        for ((plugin, route), calls) in calls {
            let computed = RouteCalls::computed(calls).as_secs_f64();
            family.row(&[("plugin", plugin), ("route", route)], computed);
        }
    });
}

/// Writes what plugins count of their own. Names are labels, so that no plugin can break into another's family.
fn write_custom<'a>(page: &mut Page, plugins: impl Iterator<Item = &'a Plugin>) {
    let metrics: Vec<_> = plugins
        .flat_map(|plugin| plugin.metrics().into_iter().map(|(name, metric)| (&plugin.name, name, metric)))
        .collect();
    let of = |kind| metrics.iter().filter(move |(_, _, metric)| metric.kind == kind);
    page.counter("tollgate_plugin_custom_total", "What plugins count.", |family| {
        for (plugin, name, metric) in of(MetricKind::Counter) {
            family.row(&[("plugin", plugin), ("metric", name)], metric.value());
        }
    });
    page.gauge("tollgate_plugin_custom_level", "What plugins have observed last.", |family| {
        for (plugin, name, metric) in of(MetricKind::Gauge) {
            family.row(&[("plugin", plugin), ("metric", name)], metric.value());
        }
    });
    page.histogram("tollgate_plugin_custom", "What plugins observe.", |family| {
        for (plugin, name, metric) in of(MetricKind::Histogram) {
            let labels = [("plugin", &***plugin), ("metric", name)];
            family.buckets(&labels, metric.bounds(), metric.count(), metric.value());
        }
    });
}
