//! The contract in Rust, generated from `wit/`. Never leaves `plugin/`.

wasmtime::component::bindgen!({
    inline: "
        package tollgate:host;

        world host {
            include tollgate:policy/plugin@0.1.0;
            import tollgate:policy/store@0.1.0;
            import tollgate:policy/secret@0.1.0;
            import tollgate:policy/http-client@0.1.0;
            import tollgate:policy/body@0.1.0;
            export tollgate:policy/request-hook@0.1.0;
            export tollgate:policy/response-hook@0.1.0;
            export tollgate:policy/balance-hook@0.1.0;
            export tollgate:policy/complete-hook@0.1.0;
        }
    ",
    path: "../../wit",
    world: "tollgate:host/host",
    require_store_data_send: true,
    imports: {
        "tollgate:policy/http-client@0.1.0.send": async,
        "tollgate:policy/body@0.1.0.request-body": async,
        "tollgate:policy/body@0.1.0.response-body": async,
        "tollgate:policy/secret@0.1.0.verify": trappable,
        "tollgate:policy/secret@0.1.0.hmac-sha256": trappable,
    },
});
