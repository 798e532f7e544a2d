//! What does it cost to find a route among 10, 1,000 and 10,000?

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tollgate::route::{Host, Match, Table};

fn table(count: usize) -> Table {
    let mut table = Table::default();
    for number in 0..count {
        let rule = Match {
            host: Host::Exact(format!("host-{}.example.com", number % 100)),
            path: format!("/api/v1/service-{number}"),
            ..Match::default()
        };
        table.insert(rule, number).expect("every rule is another");
    }
    table
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    for count in [10, 1_000, 10_000] {
        let table = table(count);
        let wanted = count / 2;
        let host = format!("host-{}.example.com", wanted % 100);
        let path = format!("/api/v1/service-{wanted}/users/42");
        assert_eq!(table.find(&host, &path, &Method::GET, &headers), Some(wanted));
        criterion.bench_function(&format!("find a route among {count}"), |bencher| {
            bencher.iter(|| table.find(black_box(&host), black_box(&path), &Method::GET, &headers));
        });
    }
}

criterion_group!(benches, find);
criterion_main!(benches);
