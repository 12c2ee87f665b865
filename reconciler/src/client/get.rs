//! `weft get`: the server's tables, or objects as they are.

use std::fmt::Write as _;

use serde_json::Value;

use super::failure::Failure;
use super::output::{self, Format};
use super::resources::{Resource, Resources};
use super::session::{JSON, Session};
use super::table::{Layout, Printer};
use super::watch::Events;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Objects of an answer; more come in the next.
const PAGE: u32 = 500;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `KIND[,KIND…] [NAME…]`, or `KIND/NAME…`.
    pub what: Vec<String>,
    /// How it is printed.
    pub format: Format,
    /// Labels.
    pub selector: Option<String>,
    /// Fields.
    pub field_selector: Option<String>,
    /// Whether to go on with what changes.
    pub watch: bool,
    /// Objects of all namespaces.
    pub all_namespaces: bool,
}

/// A kind, or an object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its kind.
    pub resource: Resource,
    /// Only this one.
    pub name: Option<String>,
}

/// What the words of a command line name.
///
/// # Errors
/// A kind that the server does not have, a name that is empty, or both forms in one.
pub fn wanted(resources: &Resources, words: &[String]) -> Result<Vec<Wanted>, Failure> {
    let local = |why: &str| Err(Failure::Local(why.to_owned()));
    if words.iter().any(|word| word.contains('/')) {
        let mut all = Vec::new();
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                return local(&format!(
                    "{word:?} has no name; name kinds before names (KIND NAME…), or each name with its kind (KIND/NAME…)"
                ));
            };
            if name.is_empty() || name.contains('/') {
                return local(&format!("{word:?} is not KIND/NAME"));
            }
            let resource = resources.find(kind)?.clone();
            let name = Some(name.to_owned());
            all.push(Wanted { resource, name });
        }
        return Ok(all);
    }
    let Some((kinds, names)) = words.split_first() else {
        return local("You must specify the type of resource");
    };
    if names.iter().any(String::is_empty) {
        return local("resource name may not be empty");
    }
    let mut all = Vec::new();
    for kind in kinds.split(',') {
        for resource in resources.find_all(kind)? {
            let mut push = |name| {
                let resource = resource.clone();
                all.push(Wanted { resource, name });
            };
            match names {
                [] => push(None),
                names => names.iter().for_each(|name| push(Some(name.clone()))),
            }
        }
    }
    Ok(all)
}

/// Prints what is asked for. What fails is said, and the rest is printed.
///
/// # Errors
/// Nothing can be printed.
pub async fn run(session: &mut Session<'_>, options: &Options) -> Result<(), Failure> {
    let resources = Resources::discover(session).await?;
    let wanted = wanted(&resources, &options.what)?;
    let named = wanted.iter().any(|one| one.name.is_some());
    if named && options.all_namespaces {
        return Err(Failure::Local(
            "a resource cannot be retrieved by name across all namespaces".to_owned(),
        ));
    }
    if named && (options.selector.is_some() || options.field_selector.is_some()) {
        return Err(Failure::Local(
            "name cannot be provided when a selector is specified".to_owned(),
        ));
    }
    if options.watch {
        let [one] = wanted.as_slice() else {
            return Err(Failure::Local(
                "you may only specify a single resource type".to_owned(),
            ));
        };
        return watch(session, options, one).await;
    }
    match options.format {
        Format::Table | Format::Wide => tables(session, options, &wanted).await,
        _ => objects(session, options, &wanted).await,
    }
}

async fn tables(
    session: &mut Session<'_>,
    options: &Options,
    wanted: &[Wanted],
) -> Result<(), Failure> {
    let several = wanted
        .windows(2)
        .any(|pair| pair[0].resource != pair[1].resource);
    let mut failures = Vec::new();
    let mut printers: Vec<(&Resource, Printer)> = Vec::new();
    for one in wanted {
        let mut pages = Vec::new();
        let asked = ask(session, options, one, TABLE, &mut pages).await;
        failures.extend(asked.err());
        if printers
            .last()
            .is_none_or(|(resource, _)| **resource != one.resource)
        {
            let printer = Printer::new(layout(options, &one.resource, several));
            printers.push((&one.resource, printer));
        }
        if let Some((_, printer)) = printers.last_mut() {
            pages.iter().for_each(|page| printer.add(page));
        }
    }
    let mut printed = false;
    for (_, printer) in &mut printers {
        if !printer.has_lines() {
            continue;
        }
        if std::mem::replace(&mut printed, true) {
            session.terminal.out.write_all(b"\n")?;
        }
        printer.flush(session.terminal.out)?;
    }
    if !printed && failures.is_empty() {
        let in_a_namespace =
            !options.all_namespaces && wanted.iter().all(|one| one.resource.namespaced);
        let place = if in_a_namespace {
            format!(" in {} namespace.", session.namespace())
        } else {
            String::new()
        };
        writeln!(session.terminal.err, "No resources found{place}")?;
    }
    failures
        .iter()
        .for_each(|failure| session.terminal.complain(failure));
    Ok(())
}

async fn objects(
    session: &mut Session<'_>,
    options: &Options,
    wanted: &[Wanted],
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut found = Vec::new();
    for one in wanted {
        let mut pages = Vec::new();
        let asked = ask(session, options, one, JSON, &mut pages).await;
        failures.extend(asked.err());
        for mut page in pages {
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) if one.name.is_none() => {
                    found.extend(items.into_iter().map(|item| (&one.resource, item)));
                }
                _ => found.push((&one.resource, page)),
            }
        }
    }
    if options.format == Format::Name {
        for (resource, object) in &found {
            writeln!(session.terminal.out, "{}", output::name(resource, object))?;
        }
    } else {
        let found = found.into_iter();
        let mut found: Vec<_> = found
            .map(|(resource, object)| output::shown(object, resource))
            .collect();
        let single = matches!(wanted, [one] if one.name.is_some());
        let object = match (single, found.pop()) {
            (true, None) => None,
            (true, Some(object)) => Some(object),
            (false, last) => {
                found.extend(last);
                Some(output::list(found))
            }
        };
        if let Some(object) = object {
            output::print(session.terminal.out, &object, options.format)?;
        }
    }
    failures
        .iter()
        .for_each(|failure| session.terminal.complain(failure));
    Ok(())
}

/// Asks for a kind, page by page, or for one object. What came before a failure stays.
async fn ask(
    session: &mut Session<'_>,
    options: &Options,
    one: &Wanted,
    accept: &str,
    pages: &mut Vec<Value>,
) -> Result<(), Failure> {
    let path = path(session, options, one);
    if one.name.is_some() {
        pages.push(session.get(&path, accept).await?);
        return Ok(());
    }
    let path = format!("{path}?limit={PAGE}{}", selectors(options));
    let mut next = String::new();
    loop {
        let page = session.get(&format!("{path}{next}"), accept).await?;
        let token = page.pointer("/metadata/continue").and_then(Value::as_str);
        next = match token {
            Some(token) if !token.is_empty() => format!("&continue={}", encode(token)),
            _ => String::new(),
        };
        pages.push(page);
        if next.is_empty() {
            return Ok(());
        }
    }
}

/// Prints what is there, and then each change.
async fn watch(session: &mut Session<'_>, options: &Options, one: &Wanted) -> Result<(), Failure> {
    let is_table = matches!(options.format, Format::Table | Format::Wide);
    let accept = if is_table { TABLE } else { JSON };
    let collection = Wanted {
        resource: one.resource.clone(),
        name: None,
    };
    let mut options = options.clone();
    if let Some(name) = &one.name {
        // An object that is not there is said to be so.
        session.get(&path(session, &options, one), JSON).await?;
        options.field_selector = Some(format!("metadata.name={name}"));
    }
    let mut pages = Vec::new();
    ask(session, &options, &collection, accept, &mut pages).await?;
    let revision = pages
        .first()
        .and_then(|page| page.pointer("/metadata/resourceVersion"));
    let revision = revision.and_then(Value::as_str).unwrap_or("0").to_owned();
    let mut printer = Printer::new(layout(&options, &one.resource, false));
    for page in &pages {
        match page.get("items").and_then(Value::as_array) {
            Some(items) if !is_table => {
                for item in items {
                    show(session, &options, &one.resource, item.clone())?;
                }
            }
            _ => printer.add(page),
        }
    }
    printer.flush(session.terminal.out)?;
    let followed = format!(
        "{}?watch=true&resourceVersion={}{}",
        path(session, &options, &collection),
        encode(&revision),
        selectors(&options)
    );
    let mut events = Events::open(session, &followed, accept).await?;
    while let Some(event) = events.next().await? {
        if event.kind == "BOOKMARK" {
            continue;
        }
        if is_table {
            printer.add(&event.object);
            printer.flush(session.terminal.out)?;
        } else {
            show(session, &options, &one.resource, event.object)?;
        }
    }
    Ok(())
}

/// Prints one object of a watch.
fn show(
    session: &mut Session<'_>,
    options: &Options,
    resource: &Resource,
    object: Value,
) -> Result<(), Failure> {
    let out = &mut *session.terminal.out;
    if options.format == Format::Name {
        writeln!(out, "{}", output::name(resource, &object))?;
        out.flush()?;
        return Ok(());
    }
    if options.format == Format::Yaml {
        out.write_all(b"---\n")?;
    }
    output::print(out, &output::shown(object, resource), options.format)
}

fn layout(options: &Options, resource: &Resource, several: bool) -> Layout {
    Layout {
        wide: options.format == Format::Wide,
        namespace: options.all_namespaces && resource.namespaced,
        kind: several.then(|| resource.shown()),
    }
}

fn path(session: &Session<'_>, options: &Options, one: &Wanted) -> String {
    let namespace = (!options.all_namespaces).then(|| session.namespace());
    one.resource.path(namespace, one.name.as_deref())
}

fn selectors(options: &Options) -> String {
    let mut query = String::new();
    let selectors = [
        ("labelSelector", &options.selector),
        ("fieldSelector", &options.field_selector),
    ];
    for (name, selector) in selectors {
        if let Some(selector) = selector {
            // Strings take all.
            let _ = write!(query, "&{name}={}", encode(selector));
        }
    }
    query
}

fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
