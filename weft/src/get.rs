//! `weft get`

use clap::ValueEnum;
use reconciler::client::get::{self, Options};
use reconciler::client::output::Format;

use crate::connection::Connection;

/// What `weft get` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// KIND[,KIND…] [NAME…], or KIND/NAME…; a kind is called pods, pod, po, Pod, or deployments.apps.
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// How objects are printed.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Output>,
    /// Only objects with these labels, as app=web,tier!=db.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only objects with these fields, as status.phase=Running.
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// Then go on with every change.
    #[arg(short, long)]
    watch: bool,
    /// Objects of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// All columns.
    Wide,
    /// As they are, in YAML.
    Yaml,
    /// As they are, in JSON.
    Json,
    /// KIND/NAME.
    Name,
}

/// Prints what is there; whether all of it.
pub fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let options = Options {
        what: arguments.what,
        format: match arguments.output {
            None => Format::Table,
            Some(Output::Wide) => Format::Wide,
            Some(Output::Yaml) => Format::Yaml,
            Some(Output::Json) => Format::Json,
            Some(Output::Name) => Format::Name,
        },
        selector: arguments.selector,
        field_selector: arguments.field_selector,
        watch: arguments.watch,
        all_namespaces: arguments.all_namespaces,
    };
    arguments
        .connection
        .run(async |session| get::run(session, &options).await)
}
