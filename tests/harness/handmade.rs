//! Plugins that no compiler makes, written by hand.
//!
//! A plugin in Rust cannot make its table grow, return a pointer to where there is no memory, or have a start function
//! that never ends. Whoever wants to harm the proxy can.

/// What such a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handmade {
    /// Nothing: it lets requests pass. What the others are compared with.
    Harmless,
    /// Has its table grow until that is refused, lets the request pass, and traps where it got more than it should.
    GrowsTable,
    /// Asks for more of its table until the end of time.
    GrowsTableForever,
    /// Has a table that is too large from the beginning.
    HasHugeTable,
    /// Has a memory that is too large from the beginning.
    HasHugeMemory,
    /// Has more tables than anybody needs.
    HasManyTables,
    /// Has eight memories.
    HasManyMemories,
    /// Takes a compiler minutes and gigabytes, with less than half a megabyte.
    CostsToCompile,
    /// Does not come to the end of its start.
    LoopsAtStart,
    /// Asks for moments to wait for, and gives none back.
    HoardsMoments,
    /// Waits for one moment, and names it more often than there are any.
    WaitsForTooMuch,
    /// Says that the host can put what it passes where there is no memory.
    AllocatesNowhere,
    /// Never comes to an end of finding room for what the host passes.
    AllocatesForever,
    /// Calls the host while the host passes something.
    CallsWhileItAllocates,
    /// Says that its verdict stands where there is no memory.
    AnswersNowhere,
    /// Gives a verdict that there is not.
    AnswersNonsense,
    /// Answers with more headers than memory could hold.
    AnswersWithoutEnd,
    /// Names an upstream in bytes that are no text.
    AnswersNoText,
}

/// Around the module in the place of `@module@`: the contract with what these plugins use of it.
const COMPONENT: &str = r#"(component
  (import "tollgate:policy/sequence@0.1.0" (instance $sequence
    (export "next" (func (param "id" u32) (result u32)))))
  (core func $next (canon lower (func $sequence "next")))
  @moments@
  @module@
  (core instance $core (instantiate $module (with "host" (instance (export "next" (func $next)) @more@))))

  (func $configure (param "config" string) (result (result (error string)))
    (canon lift (core func $core "configure")
      (memory (core memory $core "memory")) (realloc (core func $core "allocate"))))
  (instance (export "tollgate:policy/lifecycle@0.1.0") (export "configure" (func $configure)))

  (type $reply (record
    (field "status" u16) (field "headers" (list (tuple string string))) (field "body" (list u8))))
  (type $verdict (variant (case "next") (case "reply" $reply) (case "forward" string)))
  (func $on-request (result $verdict)
    (canon lift (core func $core "on-request") (memory (core memory $core "memory"))))
  ;; What an interface exports has to have a name in it, types as well.
  (component $hook
    (type $reply' (record
      (field "status" u16) (field "headers" (list (tuple string string))) (field "body" (list u8))))
    (import "with-reply" (type $reply (eq $reply')))
    (type $verdict' (variant (case "next") (case "reply" $reply) (case "forward" string)))
    (import "with-verdict" (type $verdict (eq $verdict')))
    (import "with-on-request" (func $on-request (result $verdict)))
    (export $named-reply "reply" (type $reply))
    (type $named-verdict' (variant (case "next") (case "reply" $named-reply) (case "forward" string)))
    (export $named-verdict "verdict" (type $named-verdict'))
    (export "on-request" (func $on-request) (func (result $named-verdict))))
  (instance $request-hook (instantiate $hook
    (with "with-reply" (type $reply))
    (with "with-verdict" (type $verdict))
    (with "with-on-request" (func $on-request))))
  (export "tollgate:policy/request-hook@0.1.0" (instance $request-hook)))"#;

/// What those import that wait for moments. The list of what is waited for is of another module, whose memory it is in.
const MOMENTS: &str = r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $pollable' (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable'))))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core module $list
    (memory (export "memory") 16)
    (func (export "allocate") (param i32 i32 i32 i32) (result i32) i32.const 65536)
    (func (export "name") (param $place i32) (param $moment i32)
      (i32.store (local.get $place) (local.get $moment))))
  (core instance $list (instantiate $list))
  (core func $poll (canon lower (func $poll "poll")
    (memory (core memory $list "memory")) (realloc (core func $list "allocate"))))"#;

/// The parts of a module that differ, as text.
struct Parts {
    /// Pages of 64 KiB.
    memory: u32,
    /// Tables of one element each.
    tables: usize,
    /// Data, and what else there is to say.
    more: &'static str,
    /// The body of the function that finds room for what the host passes; an address.
    allocate: &'static str,
    /// The body of the hook; the address of its verdict. At 0 stands `next`.
    on_request: &'static str,
}

const HARMLESS: Parts =
    Parts { memory: 1, tables: 0, more: "", allocate: "i32.const 4096", on_request: "i32.const 0" };

impl Handmade {
    pub fn name(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::GrowsTable => "grows-table",
            Self::GrowsTableForever => "grows-table-forever",
            Self::HasHugeTable => "has-huge-table",
            Self::HasHugeMemory => "has-huge-memory",
            Self::HasManyTables => "has-many-tables",
            Self::HasManyMemories => "has-many-memories",
            Self::CostsToCompile => "costs-to-compile",
            Self::LoopsAtStart => "loops-at-start",
            Self::HoardsMoments => "hoards-moments",
            Self::WaitsForTooMuch => "waits-for-too-much",
            Self::AllocatesNowhere => "allocates-nowhere",
            Self::AllocatesForever => "allocates-forever",
            Self::CallsWhileItAllocates => "calls-while-it-allocates",
            Self::AnswersNowhere => "answers-nowhere",
            Self::AnswersNonsense => "answers-nonsense",
            Self::AnswersWithoutEnd => "answers-without-end",
            Self::AnswersNoText => "answers-no-text",
        }
    }

    /// The plugin, as a file of it would be.
    pub fn component(self) -> Vec<u8> {
        let Parts { memory, tables, more, allocate, on_request } = self.parts();
        let costly = if self == Self::CostsToCompile { costly_function() } else { String::new() };
        let tables = "(table 1 funcref)".repeat(tables);
        let module = format!(
            "(core module $module
              (import \"host\" \"next\" (func $next (param i32) (result i32)))
              {more}
              (memory (export \"memory\") {memory})
              {tables}
              {costly}
              (func (export \"allocate\") (param i32 i32 i32 i32) (result i32) {allocate})
              (func (export \"configure\") (param i32 i32) (result i32) i32.const 0)
              (func (export \"on-request\") (result i32) {on_request}))"
        );
        let (moments, more) = match self {
            Self::HoardsMoments | Self::WaitsForTooMuch => (
                MOMENTS,
                "(export \"subscribe\" (func $subscribe)) (export \"poll\" (func $poll)) \
                 (export \"name\" (func $list \"name\"))",
            ),
            _ => ("", ""),
        };
        // A module has one memory.
        let memories = match self {
            Self::HasManyMemories => {
                "(core module $more (memory 1))".to_owned() + &"(core instance (instantiate $more))".repeat(7)
            }
            _ => String::new(),
        };
        let module = memories + &module;
        let component = COMPONENT.replace("@module@", &module).replace("@moments@", moments);
        wat::parse_str(component.replace("@more@", more))
            .unwrap_or_else(|error| panic!("{} is no component: {error}", self.name()))
    }

    fn parts(self) -> Parts {
        match self {
            Self::Harmless => HARMLESS,
            Self::GrowsTable => Parts {
                more: "(table $table 1 funcref)",
                on_request: "
                    (loop $again
                      (br_if $again
                        (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
                    (if (i32.gt_u (table.size $table) (i32.const 65536)) (then unreachable))
                    i32.const 0",
                ..HARMLESS
            },
            Self::GrowsTableForever => Parts {
                more: "(table $table 1 funcref)",
                on_request: "
                    (loop $again
                      (drop (table.grow $table (ref.null func) (i32.const 1000)))
                      (br $again))
                    unreachable",
                ..HARMLESS
            },
            Self::HasHugeTable => Parts { more: "(table 10000000 funcref)", ..HARMLESS },
            Self::HasHugeMemory => Parts { memory: 16 << 10, ..HARMLESS },
            Self::HasManyTables => Parts { tables: 100, ..HARMLESS },
            Self::HasManyMemories | Self::CostsToCompile => HARMLESS,
            Self::LoopsAtStart => {
                Parts { more: "(func $start (loop $again (br $again))) (start $start)", ..HARMLESS }
            }
            // Ten thousand, each a second away.
            Self::HoardsMoments => Parts {
                more: "(import \"host\" \"subscribe\" (func $subscribe (param i64) (result i32)))",
                on_request: "
                    (local $left i32)
                    (local.set $left (i32.const 10000))
                    (loop $again
                      (drop (call $subscribe (i64.const 1000000000)))
                      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                    i32.const 0",
                ..HARMLESS
            },
            // Ten thousand times the one that is now.
            Self::WaitsForTooMuch => Parts {
                more: "
                    (import \"host\" \"subscribe\" (func $subscribe (param i64) (result i32)))
                    (import \"host\" \"poll\" (func $poll (param i32 i32 i32)))
                    (import \"host\" \"name\" (func $name (param i32 i32)))",
                on_request: "
                    (local $left i32) (local $moment i32)
                    (local.set $moment (call $subscribe (i64.const 0)))
                    (local.set $left (i32.const 10000))
                    (loop $again
                      (call $name (i32.mul (local.get $left) (i32.const 4)) (local.get $moment))
                      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                    (call $poll (i32.const 4) (i32.const 10000) (i32.const 60000))
                    i32.const 0",
                ..HARMLESS
            },
            Self::AllocatesNowhere => Parts { allocate: "i32.const -64", ..HARMLESS },
            Self::AllocatesForever => Parts { allocate: "(loop $again (br $again)) unreachable", ..HARMLESS },
            Self::CallsWhileItAllocates => Parts {
                allocate: "
                    (drop (call $next (i32.const 0)))
                    i32.const 4096",
                ..HARMLESS
            },
            Self::AnswersNowhere => Parts { on_request: "i32.const -64", ..HARMLESS },
            Self::AnswersNonsense => {
                Parts { more: "(data (i32.const 64) \"\\4d\")", on_request: "i32.const 64", ..HARMLESS }
            }
            // A reply of status 200, with 2^31 - 1 headers at 0.
            Self::AnswersWithoutEnd => Parts {
                more: "(data (i32.const 64) \"\\01\\00\\00\\00\\c8\\00\\00\\00\\00\\00\\00\\00\\ff\\ff\\ff\\7f\\00\\00\\00\\00\\00\\00\\00\\00\")",
                on_request: "i32.const 64",
                ..HARMLESS
            },
            // `forward`, with the two bytes at 128.
            Self::AnswersNoText => Parts {
                more: "(data (i32.const 64) \"\\02\\00\\00\\00\\80\\00\\00\\00\\02\\00\\00\\00\") (data (i32.const 128) \"\\ff\\fe\")",
                on_request: "i32.const 64",
                ..HARMLESS
            },
        }
    }
}

/// A function whose every loop changes all of its variables, so that a compiler has to join each of them at each loop.
fn costly_function() -> String {
    const VARIABLES: usize = 2000;
    const LOOPS: usize = 2000;
    let variables = "i32 ".repeat(VARIABLES);
    let mut body = String::new();
    for number in 0..LOOPS {
        let (to, from) = (number % VARIABLES, (number * 7 + 1) % VARIABLES);
        body.push_str(&format!(
            "(loop $l{number} (local.set {to} (i32.add (local.get {from}) (local.get {to}))) (br_if $l{number} (local.get {to}))\n"
        ));
    }
    body.push_str(&")".repeat(LOOPS));
    let uses = (0..VARIABLES).map(|number| format!("(i32.store (i32.const 0) (local.get {number}))"));
    format!("(func (export \"costly\") (local {variables}) {body} {})", uses.collect::<String>())
}
