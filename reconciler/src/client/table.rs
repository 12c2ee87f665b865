//! A server's Table as text, aligned as `kubectl` aligns it.

use std::io::{self, Write};

use serde_json::Value;

/// Blanks between columns.
const PADDING: usize = 3;
/// The least width of a column, padding included.
const LEAST: usize = 6;

/// Prints Tables of one kind, one after the other. Columns never become narrower, so that a watch stays aligned.
#[derive(Debug, Default)]
pub struct Printer {
    layout: Layout,
    columns: Option<Vec<Column>>,
    lines: Vec<Vec<String>>,
    widths: Vec<usize>,
}

/// Which columns there are.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Columns of lesser priority too.
    pub wide: bool,
    /// A first column with the namespace.
    pub namespace: bool,
    /// `deployment.apps`: goes before names, with a slash.
    pub kind: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    shown: bool,
    name: bool,
}

impl Printer {
    /// Nothing is printed yet.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            ..Self::default()
        }
    }

    /// Takes a Table's rows. The first one with columns says which there are, and makes the head. Tables without rows
    /// add nothing.
    pub fn add(&mut self, table: &Value) {
        let rows = table.get("rows").and_then(Value::as_array);
        let rows = rows.map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return;
        }
        if self.columns.is_none() {
            let definitions = table.get("columnDefinitions").and_then(Value::as_array);
            let Some(definitions) = definitions else {
                return;
            };
            self.head(definitions);
        }
        for row in rows {
            let line = self.line(row);
            self.lines.push(line);
        }
    }

    /// Whether there is something to write.
    pub fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Writes what was added.
    ///
    /// # Errors
    /// Of the writer.
    pub fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        for line in &self.lines {
            let columns = line.len().saturating_sub(1);
            for (at, cell) in line.iter().take(columns).enumerate() {
                let width = LEAST.max(cell.chars().count() + PADDING);
                match self.widths.get_mut(at) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        for line in self.lines.drain(..) {
            let mut text = String::new();
            for (at, cell) in line.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < line.len() {
                    let width = self.widths.get(at).copied().unwrap_or_default();
                    let blanks = width.saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            text.push('\n');
            out.write_all(text.as_bytes())?;
        }
        out.flush()
    }

    fn head(&mut self, definitions: &[Value]) {
        let mut line = Vec::new();
        if self.layout.namespace {
            line.push("NAMESPACE".to_owned());
        }
        let mut columns = Vec::new();
        for definition in definitions {
            let text = |field: &str| definition.get(field).and_then(Value::as_str);
            let priority = definition.get("priority").and_then(Value::as_i64);
            let shown = self.layout.wide || priority.unwrap_or_default() == 0;
            if shown {
                line.push(text("name").unwrap_or_default().to_uppercase());
            }
            columns.push(Column {
                shown,
                name: text("format") == Some("name"),
            });
        }
        self.columns = Some(columns);
        self.lines.push(line);
    }

    fn line(&self, row: &Value) -> Vec<String> {
        let mut line = Vec::new();
        if self.layout.namespace {
            let namespace = row.pointer("/object/metadata/namespace");
            line.push(cell(namespace.unwrap_or(&Value::Null)));
        }
        let cells = row.get("cells").and_then(Value::as_array);
        let cells = cells.map(Vec::as_slice).unwrap_or_default();
        let columns = self.columns.as_deref().unwrap_or_default();
        for (column, value) in columns.iter().zip(cells) {
            if !column.shown {
                continue;
            }
            let text = cell(value);
            line.push(match &self.layout.kind {
                Some(kind) if column.name => format!("{kind}/{text}"),
                _ => text,
            });
        }
        line
    }
}

/// A cell in one line, with nothing in it that a terminal obeys.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => {
            let line = text.find(['\u{c}', '\n', '\r']);
            let shown = &text[..line.unwrap_or(text.len())];
            let mut shown: String = shown.replace('\t', " ").replace('\u{1b}', "^[");
            shown.retain(|letter| !letter.is_control());
            if line.is_some() {
                shown.push_str("...");
            }
            shown
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn print(printer: &mut Printer, table: &Value) -> String {
        let mut out = Vec::new();
        printer.add(table);
        printer.flush(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "type": "string", "format": "name", "priority": 0},
                {"name": "Ready", "type": "string", "priority": 0},
                {"name": "IP", "type": "string", "priority": 1},
                {"name": "Age", "type": "string"}],
            "rows": [
                {"cells": ["a-long-name", "1/1", "10.0.0.1", "5s"], "object": {"metadata": {"namespace": "default"}}},
                {"cells": ["b", 0, null, "2m"], "object": {"metadata": {"namespace": "x"}}}]})
    }

    #[test]
    fn columns_are_three_blanks_apart() {
        let text = print(&mut Printer::default(), &table());
        assert_eq!(
            text,
            "NAME          READY   AGE\n\
             a-long-name   1/1     5s\n\
             b             0       2m\n"
        );
    }

    #[test]
    fn wide_namespace_and_kind_add_to_it() {
        let layout = Layout {
            wide: true,
            namespace: true,
            kind: Some("pod".to_owned()),
        };
        let text = print(&mut Printer::new(layout), &table());
        assert_eq!(
            text,
            "NAMESPACE   NAME              READY   IP         AGE\n\
             default     pod/a-long-name   1/1     10.0.0.1   5s\n\
             x           pod/b             0                  2m\n"
        );
    }

    #[test]
    fn a_watch_keeps_its_columns_and_prints_the_head_once() {
        let mut printer = Printer::default();
        print(&mut printer, &table());
        let next = json!({"columnDefinitions": null, "rows": [{"cells": ["c", "1/1", "", "9s"]}]});
        assert_eq!(print(&mut printer, &next), "c             1/1     9s\n");
        assert_eq!(print(&mut printer, &json!({"rows": []})), "");
    }

    #[test]
    fn a_cell_is_one_line_and_commands_no_terminal() {
        let table = json!({"columnDefinitions": [{"name": "m"}],
            "rows": [{"cells": ["a\tb\u{1b}[31m\nc"]}, {"cells": []}, {"cells": [true]}]});
        assert_eq!(
            print(&mut Printer::default(), &table),
            "M\na b^[[31m...\n\ntrue\n"
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key =
                prop_oneof!["columnDefinitions|rows|cells|name|format|priority|object|metadata"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_answer_is_printed_or_left_out(value in any_value(), wide: bool, namespace: bool) {
            let mut printer = Printer::new(Layout { wide, namespace, kind: Some("k".to_owned()) });
            print(&mut printer, &value);
        }

        #[test]
        fn every_column_starts_where_its_head_does(names in prop::collection::vec("[a-zäöü]{1,20}", 1..6)) {
            let rows: Vec<_> = names.iter().map(|name| json!({"cells": [name, "x"]})).collect();
            let table = json!({"columnDefinitions": [{"name": "Name"}, {"name": "Last"}], "rows": rows});
            let text = print(&mut Printer::default(), &table);
            let starts: Vec<_> = text.lines().map(|line| {
                let last = line.split("   ").last().unwrap().trim_start();
                line.chars().count() - last.chars().count()
            }).collect();
            prop_assert!(starts.iter().all(|start| *start == starts[0]), "{text}");
        }
    }
}
