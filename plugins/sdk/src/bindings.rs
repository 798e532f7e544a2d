//! The contract in Rust, generated from `wit/`.
//!
//! A world for all that can be imported, of which the linker drops what is not called, and one for each hook, so
//! that a plugin exports those it has.

pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;

            world imports {
                import tollgate:policy/request@0.1.0;
                import tollgate:policy/response@0.1.0;
                import tollgate:policy/log@0.1.0;
                import tollgate:policy/sequence@0.1.0;
                import tollgate:policy/metrics@0.1.0;
                import tollgate:policy/pool@0.1.0;
                import tollgate:policy/body@0.1.0;
                import tollgate:policy/store@0.1.0;
                import tollgate:policy/http-client@0.1.0;
                import tollgate:policy/secret@0.1.0;
            }
        ",
        generate_all,
        // Answers of hooks are written there.
        generate_unused_types: true,
    });
}

pub mod hooks {
    pub mod lifecycle {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package tollgate:sdk-lifecycle;

                world lifecycle {
                    export tollgate:policy/lifecycle@0.1.0;
                }
            ",
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_lifecycle",
        });
    }

    pub mod request {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package tollgate:sdk-request;

                world request {
                    export tollgate:policy/request-hook@0.1.0;
                }
            ",
            with: { "tollgate:policy/types@0.1.0": crate::bindings::imports::tollgate::policy::types },
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_request",
        });
    }

    pub mod response {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package tollgate:sdk-response;

                world response {
                    export tollgate:policy/response-hook@0.1.0;
                }
            ",
            with: { "tollgate:policy/types@0.1.0": crate::bindings::imports::tollgate::policy::types },
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_response",
        });
    }

    pub mod balance {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package tollgate:sdk-balance;

                world balance {
                    export tollgate:policy/balance-hook@0.1.0;
                }
            ",
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_balance",
        });
    }

    pub mod complete {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package tollgate:sdk-complete;

                world complete {
                    export tollgate:policy/complete-hook@0.1.0;
                }
            ",
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_complete",
        });
    }

    pub mod tick {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package tollgate:sdk-tick;

                world tick {
                    export tollgate:policy/tick-hook@0.1.0;
                }
            ",
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_tick",
        });
    }
}
