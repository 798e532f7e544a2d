# What is run before a change lands.
check: test format lint

test:
    cargo test --workspace

format:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets -- --deny warnings
    cargo clippy --package 'tollgate-plugin-*' --target wasm32-wasip2 -- --deny warnings

# Side by side with nginx, HAProxy and Envoy; takes some ten minutes.
compare *arguments:
    benches/compare/run {{arguments}}

# What reads bytes from the network, with bytes that nobody has thought of: one target or all, so many seconds each.
fuzz target="all" seconds="1800":
    fuzz/run {{target}} {{seconds}}

bench *arguments:
    cargo bench --package tollgate-tests {{arguments}}

# With clients and servers of others; installs what it needs of Python and Node under target.
interop *arguments:
    tests/interop/run {{arguments}}
    tests/interop/websocket {{arguments}}

# Slow clients, idle connections, handshakes and HTTP/2, beside nginx: attack, idle, handshakes, http2, or all.
front *arguments:
    benches/front/run {{arguments}}

# One policy in nine languages, built, tested and measured, and what `plugin new` begins; fetches their tools.
languages *arguments:
    cargo build --profile release --package tollgate
    TOLLGATE=target/release/tollgate examples/languages/build --test {{arguments}}
    TOLLGATE=target/release/tollgate examples/languages/scaffolds {{arguments}}

# What plugins cost, and what bad ones cost others: hostile, reloads, chain, store, http-client, or all.
plugins *arguments:
    benches/plugins/run {{arguments}}

# Endpoints from ZooKeeper, which is a feature: with a real one, where Debian's package `zookeeper` is installed.
zookeeper:
    cargo test --workspace --features tollgate-tests/zookeeper --test behaviour -- zookeeper
