//! Objects as JSON, YAML or names.

use std::io::Write;

use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Serializer, Value, json};

use super::failure::Failure;
use super::resources::Resource;

/// How objects are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The server's table.
    #[default]
    Table,
    /// The server's table with all columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// `deployment.apps/web`
    Name,
}

/// Makes an object what is shown of it: without the record of who manages which field, and with its kind, which items
/// of lists lack.
pub fn shown(mut object: Value, resource: &Resource) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields
            .entry("apiVersion")
            .or_insert_with(|| resource.api_version().into());
        fields
            .entry("kind")
            .or_insert_with(|| resource.kind.as_str().into());
        let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            metadata.remove("managedFields");
        }
    }
    object
}

/// Several objects as one.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// Prints an object. For names see [`name`].
///
/// # Errors
/// Of the writer.
pub fn print(out: &mut dyn Write, object: &Value, format: Format) -> Result<(), Failure> {
    if format == Format::Yaml {
        let text = serde_saphyr::to_string(object)
            .map_err(|error| Failure::Local(format!("write YAML: {error}")))?;
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
    } else {
        let mut text = Vec::new();
        let mut serializer = Serializer::with_formatter(
            &mut text,
            GoFormatter(PrettyFormatter::with_indent(b"    ")),
        );
        serde::Serialize::serialize(object, &mut serializer)
            .map_err(|error| Failure::Local(format!("write JSON: {error}")))?;
        text.push(b'\n');
        out.write_all(&text)?;
    }
    out.flush()?;
    Ok(())
}

/// `deployment.apps/web`
pub fn name(resource: &Resource, object: &Value) -> String {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    format!("{}/{}", resource.shown(), name.unwrap_or_default())
}

/// Indented, and with the letters of HTML escaped, as Go writes JSON.
struct GoFormatter(PrettyFormatter<'static>);

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut letters = from.chars();
            if let Some(letter) = letters.next() {
                write!(writer, "\\u{:04x}", u32::from(letter))?;
            }
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(object: &Value, format: Format) -> String {
        let mut out = Vec::new();
        print(&mut out, object, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_as_go_writes_it() {
        let object = json!({"b": ["<none>", {}, []], "a": "&\n"});
        assert_eq!(
            text(&object, Format::Json),
            "{\n    \"a\": \"\\u0026\\n\",\n    \"b\": [\n        \"\\u003cnone\\u003e\",\n        {},\n        []\n    ]\n}\n"
        );
    }

    #[test]
    fn what_is_shown_has_a_kind_and_no_managed_fields() {
        let resource = Resource {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            kind: "Deployment".to_owned(),
            ..Resource::default()
        };
        let object = json!({"metadata": {"name": "a", "managedFields": []}});
        let object = shown(object, &resource);
        assert_eq!(
            object,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}})
        );
        assert_eq!(name(&resource, &object), "deployment.apps/a");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_as_what_it_was(
            value in ".{0,40}",
            word in "yes|no|null|~|0644|1e3|12:30:45|0x1|1_000|- a|a: b|#a| a|a |\\{\\}|---|\n|a\n|a\n\n\n|\n a\n|=|<<|y",
            number: i64,
        ) {
            let object = json!({"a": value, "b": [word, number, {"c": word, "d": {}, "e": []}], word.as_str(): null});
            prop_assert_eq!(&serde_json::from_str::<Value>(&text(&object, Format::Json)).unwrap(), &object);
            let yaml = text(&object, Format::Yaml);
            let read = crate::api::body::text::yaml(yaml.as_bytes());
            prop_assert_eq!(&read.expect(&yaml).value, &object);
        }
    }
}
