//! Is a document what a schema says, and where is it not?

use boon::{CompileError, Compiler, ErrorKind, InstanceToken, SchemaIndex, Schemas, ValidationError};
use serde_json::Value;

/// A schema, compiled. Of draft 2020-12, or of the one that its `$schema` names.
pub(crate) struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

/// Something that is wrong with a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Where (RFC 6901); empty for the whole.
    pub(crate) pointer: String,
    pub(crate) reason: String,
}

/// What a schema is called that was written down and has no address.
const ADDRESS: &str = "tollgate:/schema";

/// What is told of a document, at most.
const MOST: usize = 16;

/// Characters of a reason.
const LONGEST: usize = 200;

impl Schema {
    /// With `formats`, `format` must hold; without it is but a remark, as it is by default since draft 2019-09.
    pub(crate) fn new(schema: Value, formats: bool) -> Result<Self, String> {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        if formats {
            compiler.enable_format_assertions();
        }
        compiler.add_resource(ADDRESS, schema).map_err(|error| explain(&error))?;
        let index = compiler.compile(ADDRESS, &mut schemas).map_err(|error| explain(&error))?;
        Ok(Self { schemas, index })
    }

    pub(crate) fn check(&self, document: &Value) -> Result<(), Vec<Wrong>> {
        self.schemas.validate(document, self.index).map_err(|error| {
            let mut wrong = Vec::new();
            collect(&error, &mut wrong);
            wrong
        })
    }
}

/// The errors that have no causes of their own, in order: the others only lead there.
fn collect(error: &ValidationError<'_, '_>, wrong: &mut Vec<Wrong>) {
    if wrong.len() >= MOST {
        return;
    }
    // Of several schemas of which one must hold, what each has against it would be told at once, and lead nowhere.
    let is_choice = matches!(error.kind, ErrorKind::AnyOf | ErrorKind::OneOf(_) | ErrorKind::Contains);
    if !is_choice && !error.causes.is_empty() {
        return error.causes.iter().for_each(|cause| collect(cause, wrong));
    }
    let mut pointer = String::new();
    for token in &error.instance_location.tokens {
        pointer.push('/');
        match token {
            InstanceToken::Prop(name) => pointer.push_str(&name.replace('~', "~0").replace('/', "~1")),
            InstanceToken::Item(place) => pointer.push_str(&place.to_string()),
        }
    }
    let short = |text: String| match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    };
    wrong.push(Wrong { pointer: short(pointer), reason: short(error.kind.to_string()) });
}

/// What is wrong with a schema.
fn explain(error: &CompileError) -> String {
    match error {
        CompileError::LoadUrlError { url, .. } | CompileError::UnsupportedUrlScheme { url } => {
            format!("is not in the schema: `{url}`; write it under `$defs`, since nothing is fetched")
        }
        CompileError::ValidationError { src, .. } => {
            let mut wrong = Vec::new();
            collect(src, &mut wrong);
            let first_line = |reason: &str| reason.lines().next().unwrap_or_default().to_owned();
            let wrong =
                wrong.iter().map(|Wrong { pointer, reason }| format!("`{pointer}` {}", first_line(reason)));
            format!("is no JSON Schema: {}", wrong.collect::<Vec<_>>().join("; "))
        }
        other => format!("is no JSON Schema: {}", other.to_string().replace(ADDRESS, "")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, document: Value) -> Vec<(String, String)> {
        let schema = Schema::new(schema, true).expect("it is a schema");
        let wrong = schema.check(&document).err().unwrap_or_default();
        wrong.into_iter().map(|Wrong { pointer, reason }| (pointer, reason)).collect()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let schema = json!({
            "$defs": { "price": { "type": "number", "minimum": 0 } },
            "type": "object",
            "required": ["id", "lines"],
            "properties": {
                "id": { "type": "string", "format": "uuid" },
                "lines": { "type": "array", "items": { "properties": { "a/b": { "$ref": "#/$defs/price" } } } },
                "kind": { "oneOf": [{ "const": "a" }, { "const": "b" }] },
            },
            "additionalProperties": false,
        });
        let fine =
            json!({ "id": "0189dcd5-5311-7d40-8db0-9496a2eef37b", "lines": [{ "a/b": 1 }], "kind": "a" });
        assert_eq!(check(schema.clone(), fine), []);
        let found = check(schema, json!({ "id": 7, "lines": [{}, { "a/b": -1 }], "kind": "c", "x": 1 }));
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers.len(), 4, "{found:?}");
        for pointer in ["/id", "/lines/1/a~1b", "/kind", ""] {
            assert!(pointers.contains(&pointer), "{pointer}: {found:?}");
        }
    }

    #[test]
    fn what_is_told_has_an_end() {
        let many: Vec<Value> = (0..1000).map(Value::from).collect();
        assert_eq!(check(json!({ "items": { "type": "string" } }), many.into()).len(), MOST);
        let found = check(json!({ "pattern": "a" }), "\u{e9}".repeat(10_000).into());
        assert!(found[0].1.chars().count() <= LONGEST + 3);
    }
}
