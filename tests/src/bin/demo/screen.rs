//! What the demo shows on the terminal: steps with their time, tables, commands with their output.

use std::io::IsTerminal;
use std::time::Instant;

/// Writes to standard output; in colour on a terminal only.
pub struct Screen {
    colour: bool,
    step: u32,
}

impl Screen {
    /// Colour if standard output is a terminal and `NO_COLOR` is unset.
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, step: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A numbered headline.
    pub fn headline(&mut self, text: &str) {
        self.step += 1;
        let text = format!("{}. {text}", self.step);
        println!("\n{}", self.paint("1;36", &text));
    }

    /// A plain line.
    pub fn line(&self, text: &str) {
        println!("   {text}");
    }

    /// Something that took a while.
    pub fn done(&self, text: &str, since: Instant) {
        let time = format!("({} ms)", since.elapsed().as_millis());
        println!(
            "   {} {text} {}",
            self.paint("32", "✓"),
            self.paint("2", &time)
        );
    }

    /// A property that was checked and holds.
    pub fn holds(&self, text: &str) {
        println!("   {} {text}", self.paint("32", "✓"));
    }

    /// A property that was checked and does not hold.
    pub fn fails(&self, text: &str) {
        println!("   {} {text}", self.paint("31", "✗"));
    }

    /// A command as one could type it, and what it printed.
    pub fn command(&self, place: &str, command: &str, output: &str) {
        println!(
            "   {:<12} {}",
            place,
            self.paint("2", &format!("$ {command}"))
        );
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            println!("   {:<12}   {}", "", line.trim());
        }
    }

    /// A table; the first row is the head.
    pub fn table(&self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths);
            let cells: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            let line = cells.join("  ");
            println!(
                "   {}",
                if number == 0 {
                    self.paint("1", &line)
                } else {
                    line
                }
            );
        }
    }
}
