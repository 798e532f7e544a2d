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

bench *arguments:
    cargo bench --package tollgate-tests {{arguments}}

# HTTP/2, gRPC and WebSocket with clients of others; installs Python packages under target.
interop *arguments:
    tests/interop/http2 {{arguments}}
    tests/interop/websocket {{arguments}}
