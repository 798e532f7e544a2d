//! What becomes of an upstream as requests and checks tell of its endpoints.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{endpoint::Probe, *};
use crate::{config, members::Members, telemetry::Writer};

fn settings(count: u16, more: &str) -> config::Upstream {
    let endpoints = (1..=count).map(|port| format!("\"http://127.0.0.1:{port}\"")).collect::<Vec<_>>();
    toml::from_str(&format!("endpoints = [{}]\n{more}", endpoints.join(", "))).unwrap()
}

fn upstream(count: u16, more: &str) -> Arc<Upstream> {
    Upstream::new("app".into(), &settings(count, more), Tls::default(), None)
}

fn ports(upstream: &Upstream) -> Vec<u16> {
    let roster = upstream.roster();
    roster.usable().iter().filter_map(|entry| entry.endpoint.authority.port_u16()).collect()
}

fn fail(upstream: &Upstream, index: usize, times: u32, reason: Reason) {
    let endpoint = upstream.roster().all()[index].endpoint.clone();
    for _ in 0..times {
        upstream.failed(&InFlight::new(endpoint.clone(), Probe::No), reason, || "it is gone".to_owned());
    }
}

#[test]
fn the_less_loaded_of_two_is_chosen() {
    let upstream = upstream(2, "");
    let roster = upstream.roster();
    let _busy = roster.begin(0, false, None).unwrap();
    for _ in 0..20 {
        assert_eq!(roster.least_loaded_of_two(&[]), Some(1));
    }
    assert_eq!(roster.least_loaded_of_two(&[1]), Some(0));
    assert_eq!(roster.least_loaded_of_two(&[0, 1]), None);
    assert_eq!(self::upstream(0, "").roster().least_loaded_of_two(&[]), None);
}

#[test]
fn weights_count_where_the_host_chooses() {
    let text = "endpoints = [{ url = 'http://a', weight = 9 }, 'http://b', { url = 'http://c', weight = 0 }]";
    let upstream = Upstream::new("app".into(), &toml::from_str(text).unwrap(), Tls::default(), None);
    let roster = upstream.roster();
    let mut picks = [0; 3];
    for _ in 0..10_000 {
        picks[roster.least_loaded_of_two(&[]).unwrap()] += 1;
    }
    assert!((8_000..9_900).contains(&picks[0]) && picks[1] > 100 && picks[2] == 0, "{picks:?}");
    // As many in flight as its weight allows: the others' turn.
    let _busy: Vec<_> = (0..9).map(|_| roster.begin(0, false, None).unwrap()).collect();
    assert_eq!((0..20).map(|_| roster.less_loaded(0, 1)).max(), Some(1));
}

#[test]
fn requests_are_counted_in_flight_and_ever() {
    let upstream = upstream(1, "");
    let roster = upstream.roster();
    let endpoint = &roster.all()[0].endpoint;
    let first = roster.begin(0, false, None).unwrap();
    drop(roster.begin(0, false, None).unwrap());
    assert_eq!((endpoint.active(), endpoint.requests()), (1, 2));
    drop(first);
    assert_eq!((endpoint.active(), endpoint.requests()), (0, 2));
}

#[test]
fn endpoints_of_the_same_address_survive_a_reload_with_what_is_known_of_them() {
    let before = upstream(2, "");
    let after = Upstream::new("app".into(), &settings(3, ""), Tls::default(), Some(&before));
    let (old, new) = (before.roster(), after.roster());
    assert!(Arc::ptr_eq(&old.all()[1].endpoint, &new.all()[1].endpoint));
    assert_ne!(old.version(), new.version(), "balancers are told of the new list");
    assert!(before.is_same(&settings(2, ""), &Tls::default()));
    fail(&before, 1, 5, Reason::NoConnection);
    assert_eq!((ports(&before), ports(&after)), (vec![1], vec![1, 3]), "whoever finds out, all know");
}

#[test]
fn an_endpoint_that_has_recovered_has_all_its_failures_before_it() {
    let upstream = upstream(2, "health = {}\noutlier = { consecutive-failures = 3, consecutive-errors = 3 }");
    let endpoint = upstream.roster().all()[0].endpoint.clone();
    upstream.note(&endpoint, Event::CheckPassed);
    fail(&upstream, 0, 2, Reason::NoAnswer);
    let error = |times: u32| {
        for _ in 0..times {
            let request = InFlight::new(endpoint.clone(), Probe::No);
            upstream.answered(&request, StatusCode::INTERNAL_SERVER_ERROR, None);
        }
    };
    error(2);
    fail(&upstream, 0, 2, Reason::NoAnswer);
    let state = || endpoint.health().state(&upstream.settings);
    for _ in 0..3 {
        upstream.note(&endpoint, Event::CheckFailed("refused".into()));
    }
    assert_eq!(state(), State::Unreachable);
    upstream.note(&endpoint, Event::CheckPassed);
    assert_eq!(state(), State::Healthy);
    fail(&upstream, 0, 2, Reason::NoAnswer);
    assert_eq!(state(), State::Healthy, "these are two, and not five");
    error(2);
    assert_eq!(state(), State::Healthy, "and so are these");
}

#[test]
fn requests_without_an_answer_count_where_the_rate_of_errors_does() {
    let upstream = upstream(3, "outlier = { error-rate = 0.3, min-requests = 4, consecutive-failures = 0 }");
    for _ in 0..4 {
        let request = InFlight::new(upstream.roster().all()[1].endpoint.clone(), Probe::No);
        upstream.answered(&request, StatusCode::OK, None);
        upstream.failed(&request, Reason::NoAnswer, || "it is gone".to_owned());
    }
    upstream.judge();
    assert_eq!(ports(&upstream), [1, 3]);
}

#[test]
fn an_endpoint_without_a_connection_is_left_out_until_a_probe() {
    let upstream = upstream(3, "outlier = { eject = '1ms' }");
    let version = upstream.roster().version();
    fail(&upstream, 0, 4, Reason::NoConnection);
    assert_eq!((ports(&upstream).len(), upstream.roster().version()), (3, version));
    fail(&upstream, 0, 1, Reason::NoConnection);
    assert_eq!(ports(&upstream), [2, 3]);
    assert_ne!(upstream.roster().version(), version, "balancers are told");

    let outlier = &upstream.settings.outlier;
    let until = upstream.roster().all()[0].endpoint.health().probe_from(&upstream.settings).unwrap();
    upstream.pass_time(until);
    let roster = Arc::clone(&upstream.roster());
    let probe = loop {
        // Requests that cannot be repeated wait until the ejection is long over; time passes meanwhile.
        if let Some(probe) = roster.begin_probe(false, outlier) {
            break probe;
        }
    };
    assert!(roster.begin_probe(true, outlier).is_none(), "one at a time");
    drop(probe);
    let probe = roster.begin_probe(true, outlier).expect("whoever broke off has told nothing");
    upstream.answered(&probe, StatusCode::OK, None);
    assert_eq!(ports(&upstream), [1, 2, 3]);
}

#[test]
fn what_began_before_an_endpoint_was_healthy_again_says_nothing_of_it() {
    let upstream = upstream(3, "outlier = { eject = '1ms', min-requests = 5 }");
    let endpoint = upstream.roster().all()[0].endpoint.clone();
    let hang = || InFlight::new(endpoint.clone(), Probe::No);
    let hanging: Vec<_> = (0..20).map(|_| hang()).collect();
    fail(&upstream, 0, 5, Reason::NoAnswer);
    let until = endpoint.health().probe_from(&upstream.settings).unwrap();
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    upstream.pass_time(Instant::now());
    upstream.answered(&InFlight::new(endpoint.clone(), Probe::Claimed), StatusCode::OK, None);
    assert_eq!(ports(&upstream), [1, 2, 3]);
    for request in hanging {
        endpoint.lost(Writer::ALONE);
        upstream.failed(&request, Reason::NoAnswer, || "it was gone".to_owned());
    }
    upstream.judge();
    assert_eq!(ports(&upstream), [1, 2, 3]);
    // What fails now does.
    for _ in 0..10 {
        endpoint.lost(Writer::ALONE);
        drop(hang());
    }
    upstream.judge();
    assert_eq!(ports(&upstream), [2, 3]);
}

#[test]
fn a_failed_probe_leaves_it_out_for_longer() {
    let upstream = upstream(2, "");
    fail(&upstream, 0, 5, Reason::NoConnection);
    let until = |upstream: &Upstream| {
        upstream.roster().all()[0].endpoint.health().probe_from(&upstream.settings).unwrap()
    };
    let first = until(&upstream);
    let probe = InFlight::new(upstream.roster().all()[0].endpoint.clone(), Probe::Claimed);
    upstream.failed(&probe, Reason::NoConnection, || "it is gone".to_owned());
    assert!(until(&upstream) > first + upstream.settings.outlier.eject.get() / 2);
    assert_eq!(ports(&upstream), [2]);
}

#[test]
fn at_most_a_share_is_left_out_for_what_it_answers_but_all_without_a_connection() {
    let upstream = upstream(3, "");
    fail(&upstream, 0, 5, Reason::NoAnswer);
    fail(&upstream, 1, 5, Reason::NoAnswer);
    assert_eq!(ports(&upstream), [2, 3]);
    fail(&upstream, 1, 5, Reason::NoConnection);
    assert_eq!(ports(&upstream), [3]);
    fail(&upstream, 2, 5, Reason::NoConnection);
    assert_eq!(ports(&upstream), [1, 2, 3], "nobody is well: everybody is used");
    assert!(upstream.roster().is_panicking());
    let lucky = upstream.roster().begin(1, false, None).unwrap();
    upstream.answered(&lucky, StatusCode::OK, None);
    assert_eq!(ports(&upstream), [2], "and whoever answers is well again");
}

#[test]
fn errors_in_a_row_count_where_they_are_to() {
    for (settings, expected) in [("", vec![1, 2, 3]), ("outlier.consecutive-errors = 2", vec![2, 3])] {
        let upstream = upstream(3, settings);
        let answer =
            |status| upstream.answered(&upstream.roster().begin(0, false, None).unwrap(), status, None);
        answer(StatusCode::BAD_GATEWAY);
        answer(StatusCode::NOT_FOUND);
        answer(StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(ports(&upstream), [1, 2, 3]);
        upstream.answered(
            &InFlight::new(upstream.roster().all()[0].endpoint.clone(), Probe::No),
            StatusCode::INTERNAL_SERVER_ERROR,
            None,
        );
        assert_eq!(ports(&upstream), expected);
    }
}

#[test]
fn rates_and_latencies_are_judged_by_interval() {
    let upstream =
        upstream(4, "outlier = { error-rate = 0.2, latency-factor = 2, min-requests = 10, share-max = 0.5 }");
    for index in 0..4 {
        let request = upstream.roster().begin(index, false, None).unwrap();
        let after = Duration::from_millis(if index == 1 { 50 } else { 10 });
        for turn in 0..10 {
            let fails = index == 2 && turn < 3;
            let status = if fails { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
            upstream.answered(&request, status, Some(after));
        }
    }
    upstream.judge();
    assert_eq!(ports(&upstream), [1, 4]);
    let endpoint = upstream.roster().all()[0].endpoint.clone();
    assert_eq!(endpoint.measured().requests, 0, "an interval begins with nothing");
}

#[test]
fn checks_decide_who_is_there() {
    let upstream = upstream(3, "health = {}");
    let endpoint = |index: usize| upstream.roster().all()[index].endpoint.clone();
    assert_eq!(ports(&upstream), [1, 2, 3], "nobody has been checked");
    upstream.note(&endpoint(1), Event::CheckPassed);
    assert_eq!(ports(&upstream), [2], "somebody is healthy");
    upstream.note(&endpoint(0), Event::CheckFailed("refused".into()));
    upstream.note(&endpoint(1), Event::Failing(Reason::NoConnection, None));
    assert_eq!(ports(&upstream), [3], "nobody is healthy, and one has not been checked");
}

#[test]
fn many_changes_at_once_make_few_rosters() {
    let upstream = upstream(2000, "health = {}");
    let mut versions = std::collections::BTreeSet::new();
    for index in 0..2000 {
        let endpoint = upstream.roster().all()[index].endpoint.clone();
        upstream.note(&endpoint, Event::CheckPassed);
        versions.insert(upstream.roster().version());
    }
    assert!(versions.len() < 1000, "{}", versions.len());
    let due = upstream.pass_time(Instant::now());
    upstream.pass_time(due.unwrap_or_else(Instant::now) + Duration::from_secs(1));
    assert_eq!(ports(&upstream).len(), 2000, "and in the end all are there");
}

#[test]
fn a_new_endpoint_comes_to_its_weight_slowly() {
    let before = upstream(1, "slow-start = '100s'");
    let after =
        Upstream::new("app".into(), &settings(2, "slow-start = '100s'"), Tls::default(), Some(&before));
    let weights: Vec<_> = after.roster().usable().iter().map(|entry| entry.weight).collect();
    assert_eq!(weights, [10, 1]);
    let now = Instant::now();
    after.pass_time(now + Duration::from_secs(55));
    let weights: Vec<_> = after.roster().describe().iter().map(|member| member.weight).collect();
    assert_eq!(weights, [10, 6]);
    assert_eq!(after.pass_time(now + Duration::from_secs(101)), None);
    assert_eq!(after.roster().usable()[1].weight, 1, "proportions only");
}

#[test]
fn limits_of_endpoints_add_up_and_hold_for_each() {
    let upstream = upstream(3, "limits = { endpoint-requests = 2, queue = 1 }");
    let most = upstream.settings.limits.endpoint_requests;
    upstream.pass_time(Instant::now());
    let admitted: Vec<_> = (0..6).map(|_| upstream.admit()).collect();
    assert!(admitted.iter().all(|admission| matches!(admission, Admission::In(Some(_)))));
    assert!(matches!(upstream.admit(), Admission::Wait(_)), "and is given up at once");
    let waiting = upstream.admit();
    assert!(matches!((&waiting, upstream.admit()), (Admission::Wait(_), Admission::Full)));
    let roster = upstream.roster();
    let _two = [roster.begin(0, false, most).unwrap(), roster.begin(0, false, most).unwrap()];
    assert!(roster.begin(0, false, most).is_none());
    assert!(roster.begin(1, false, most).is_some());
    assert_eq!(roster.all()[0].endpoint.requests(), 2);
}

#[test]
fn limits_count_over_a_reload() {
    let before = upstream(1, "limits.requests = 2");
    before.pass_time(Instant::now());
    let _first = before.admit();
    let after =
        Upstream::new("app".into(), &settings(1, "limits.requests = 1"), Tls::default(), Some(&before));
    after.pass_time(Instant::now());
    assert!(matches!(after.admit(), Admission::Wait(_)));
}

#[test]
fn a_limit_follows_the_latency() {
    let upstream = upstream(1, "limits.adaptive = true");
    let busy: Vec<_> = (0..20).map(|_| upstream.admit()).collect();
    let request = upstream.roster().begin(0, false, None).unwrap();
    let limit = |micros, times| {
        for _ in 0..times {
            upstream.answered(&request, StatusCode::OK, Some(Duration::from_micros(micros)));
            upstream.adapt();
        }
        upstream.load().unwrap().limit
    };
    let grown = limit(1000, 10);
    assert!(grown > 32, "{grown}");
    assert!(limit(20_000, 10) < grown);
    drop(busy);
}
