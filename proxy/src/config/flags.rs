//! The command line as written: kube-proxy's flags, our own, and the verbs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser};
use ipnet::IpNet;

use super::given::Given;
use super::values::{self, IptablesVariant, List};
use super::verb::{Verb, VerbArgs};
use super::{Error, Source};

/// The program's name in messages.
const PROGRAM: &str = "weft-proxy";

/// Flags of kube-proxy that change nothing here: name, whether it is a truth value, why not.
const MEANINGLESS: [(&str, bool, &str); 20] = [
    ("profiling", true, "there is no profiler"),
    (
        "show-hidden-metrics-for-version",
        false,
        "no metric is hidden",
    ),
    (
        "kube-api-content-type",
        false,
        "the API is spoken to in JSON",
    ),
    ("kube-api-burst", false, "requests are not limited"),
    ("kube-api-qps", false, "requests are not limited"),
    ("ipvs-scheduler", false, "there is no ipvs mode"),
    ("ipvs-exclude-cidrs", false, "there is no ipvs mode"),
    ("ipvs-strict-arp", true, "there is no ipvs mode"),
    ("ipvs-sync-period", false, "there is no ipvs mode"),
    ("ipvs-min-sync-period", false, "there is no ipvs mode"),
    ("ipvs-tcp-timeout", false, "there is no ipvs mode"),
    ("ipvs-tcpfin-timeout", false, "there is no ipvs mode"),
    ("ipvs-udp-timeout", false, "there is no ipvs mode"),
    ("logging-format", false, "the log is text"),
    ("log-flush-frequency", false, "the log is not buffered"),
    ("log-json-info-buffer-size", false, "the log is text"),
    ("log-json-split-stream", true, "the log is text"),
    (
        "log-text-info-buffer-size",
        false,
        "the log is not buffered",
    ),
    ("log-text-split-stream", true, "the log goes to stderr"),
    ("vmodule", false, "the level is one for all modules"),
];

/// A drop-in for kube-proxy: Services and EndpointSlices become load balancing in nftables, iptables
/// or a forwarding process.
#[derive(Parser, Clone, Debug, PartialEq)]
#[command(
    name = PROGRAM,
    disable_version_flag = true,
    args_override_self = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs (without one: run)"
)]
pub(super) struct Flags {
    /// A KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1); the flags that it has keys
    /// for are then ignored
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the configuration in force to this file and end
    #[arg(long, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,
    /// The same as the verb cleanup
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub cleanup: Option<bool>,
    /// Set the sysctls and end; the rest then needs CAP_NET_ADMIN only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub init_only: Option<bool>,
    /// The own Node's name [default: the host name in lower case]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// The API server's address, in place of the kubeconfig's
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,
    /// How much to log: 0 and 1 what happens, 2 to 5 more, from 6 on everything
    #[arg(
        short = 'v',
        long = "v",
        value_name = "LEVEL",
        allow_negative_numbers = true
    )]
    pub verbosity: Option<i64>,
    /// Print the version
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub version: Option<String>,
    /// The port of --healthz-bind-address where it has none; 0: not served
    #[arg(long, value_name = "PORT", hide = true)]
    pub healthz_port: Option<u16>,
    /// The port of --metrics-bind-address where it has none; 0: not served
    #[arg(long, value_name = "PORT", hide = true)]
    pub metrics_port: Option<u16>,
    #[command(flatten)]
    pub ours: Ours,
    #[command(
        flatten,
        next_help_heading = "kube-proxy's flags that --config replaces"
    )]
    pub given: Given,
    #[command(subcommand)]
    pub verb: Option<VerbArgs>,
}

/// Flags that kube-proxy has not.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Ours {
    /// Where Services and EndpointSlices come from: kube, or dir:PATH for a folder of manifests
    #[arg(long, value_name = "SOURCE", value_parser = source)]
    pub source: Option<SourceChoice>,
    /// Print what would be done, and do nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub dry_run: Option<bool>,
    /// Sync once and end, leaving what was programmed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub once: Option<bool>,
    /// How sessionAffinity ClientIP is kept: table, or hash (without state; a change of endpoints
    /// moves few clients) [default: table]
    #[arg(long, value_name = "HOW", value_parser = values::affinity_by_hash)]
    pub session_affinity: Option<bool>,
    /// Networks of cluster IPs, where the API has no ServiceCIDRs: what no Service has is dropped
    #[arg(long, value_name = "CIDRS", value_parser = values::networks)]
    pub service_cidr: Option<List<IpNet>>,
    /// Which iptables programs: auto, nft or legacy [default: auto]
    #[arg(long, value_name = "VARIANT", value_parser = values::variant)]
    pub iptables_variant: Option<IptablesVariant>,
    /// TCP node ports on 127.0.0.1 and ::1 too, by a small forwarder, in nftables and userspace mode; as if --nodeport-addresses named localhost
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub localhost_nodeports: Option<bool>,
    /// How long forwarded connections may go on after SIGTERM in userspace mode [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub graceful_timeout: Option<Duration>,
}

/// `--source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceChoice {
    Kube,
    Folder(PathBuf),
}

fn source(text: &str) -> Result<SourceChoice, String> {
    match text.split_once(':') {
        None if text == "kube" => Ok(SourceChoice::Kube),
        Some(("dir", path)) if !path.is_empty() => Ok(SourceChoice::Folder(path.into())),
        _ => Err("use kube, or dir:PATH with the path of a folder".to_owned()),
    }
}

impl SourceChoice {
    /// With what else is known of the API server.
    pub(super) fn complete(self, kubeconfig: Option<PathBuf>, master: Option<String>) -> Source {
        match self {
            Self::Kube => Source::Kube { kubeconfig, master },
            Self::Folder(path) => Source::Folder(path),
        }
    }
}

/// A command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    /// What was parsed.
    pub flags: Flags,
    /// The flags that were written, by name, with their values, for `/flagz`.
    pub listed: Vec<(String, String)>,
    /// Those of them that a file of `--config` replaces.
    pub replaceable: Vec<String>,
    /// What is accepted and has no meaning here, a sentence each.
    pub notes: Vec<String>,
}

impl Written {
    pub(super) fn verb(&self) -> Verb {
        match (&self.flags.verb, &self.flags.write_config_to) {
            (Some(verb), _) => verb.clone().into(),
            (None, Some(path)) => Verb::WriteConfig(path.clone()),
            (None, None) if self.flags.cleanup == Some(true) => Verb::Cleanup { kube_proxy: false },
            (None, None) => Verb::Run,
        }
    }
}

/// What comes of parsing.
pub(super) enum Outcome {
    Print(String),
    Written(Box<Written>),
}

fn command() -> Command {
    let ignored = MEANINGLESS.iter().map(|(name, is_bool, _)| {
        let arg = clap::Arg::new(*name).long(*name).hide(true);
        if *is_bool {
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
        } else {
            arg.action(ArgAction::Set).allow_hyphen_values(true)
        }
    });
    // Each flag may stand before the verb and after it.
    Flags::command()
        .args(ignored)
        .mut_args(|arg| arg.global(true))
}

pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Outcome, Error> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp => Ok(Outcome::Print(error.to_string())),
                _ => Err(refused(&error)),
            };
        }
    };
    let flags = Flags::from_arg_matches(&matches)
        .map_err(|error| refused(&error.format(&mut command())))?;
    match flags.version.as_deref() {
        None | Some("false") => {}
        Some(_) => {
            return Ok(Outcome::Print(format!(
                "{PROGRAM} {}\n",
                env!("CARGO_PKG_VERSION")
            )));
        }
    }
    let listed = listed(&matches);
    let file_has = Given::augment_args(Command::new(""));
    let replaceable = listed
        .iter()
        .map(|(name, _)| name)
        .filter(|name| {
            file_has
                .get_arguments()
                .any(|arg| arg.get_long() == Some(name))
        })
        .cloned()
        .collect();
    let notes = MEANINGLESS
        .iter()
        .filter(|(name, _, _)| listed.iter().any(|(written, _)| written == name))
        .map(|(name, _, why)| format!("--{name} changes nothing: {why}"))
        .collect();
    Ok(Outcome::Written(Box::new(Written {
        flags,
        listed,
        replaceable,
        notes,
    })))
}

/// clap's text without the word that the caller puts before it.
fn refused(error: &clap::Error) -> Error {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    Error::Flags(text.trim_end().to_owned())
}

/// The flags that the operator wrote, by their long names, in order of the alphabet.
fn listed(matches: &ArgMatches) -> Vec<(String, String)> {
    let command = command();
    let mut listed: Vec<_> = command
        .get_arguments()
        .filter(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
        .filter_map(|arg| {
            let values = matches.get_raw(arg.get_id().as_str())?;
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            Some((arg.get_long()?.to_owned(), values.join(",")))
        })
        .collect();
    listed.sort();
    listed
}
