//! `flannel`: turns the node's subnet lease (subnet.env, written by flanneld) into a configuration
//! for another plugin, `bridge` unless said otherwise, and calls that.
//!
//! The configuration is kept until DEL, which must undo with what ADD used even when the lease has
//! changed since. Compatible with flannel-io/cni-plugin: either can delete what the other added.
//! Unlike it: the file stays when the delegate's DEL fails, so that a retry works; a failed ADD
//! leaves none; two flannel interfaces of one container have a file each; CHECK, STATUS and GC
//! reach the delegate; nothing is written to stderr.

mod plan;
mod saved;
mod subnet_env;

use crate::cni::{Call, CniResult, Error, Plugin, Result, Verb, code, delegate, with_undo};
use plan::{Config, Delegate};
use saved::Saved;
use serde_json::Value;
use subnet_env::SubnetEnv;

/// The plugin.
pub struct Flannel;

impl Plugin for Flannel {
    fn name(&self) -> &'static str {
        "flannel"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        let config = Config::load(call)?;
        let planned = plan(call, &config)?;
        let saved = Saved::of(&config.data_dir, call);
        delegate::find_in_path(&planned.plugin, &call.path)?;
        let before = saved.read()?;
        // What is there already belongs to an ADD that succeeded: a second one, which the spec
        // forbids, must fail without taking it down.
        let is_first = before.is_none();
        with_undo(|undo| {
            let written = saved.write(&planned.config)?;
            let (plugin, config) = (&planned.plugin, &planned.config);
            undo.push(format!("DEL of {plugin}"), move || {
                if is_first {
                    // As the spec asks. Where it fails the file stays for the runtime's own DEL.
                    delegate::run(call, Verb::Del, plugin, config)?;
                }
                written.undo()
            });
            delegate::add(call, plugin, config)
        })
    }

    fn del(&self, call: &Call) -> Result<()> {
        let config = Config::load(call)?;
        let Some(found) = Saved::of(&config.data_dir, call).read()? else {
            return Ok(());
        };
        // A file that a crash left torn says nothing; what an ADD would use now is the best guess.
        let delegate = match found.delegate() {
            Some(delegate) => Some(delegate),
            None => plan(call, &config).ok(),
        };
        match delegate {
            Some(mut it) => {
                // The delegate learns which addresses it gave, as the spec has it.
                it.copy_from(call.config(), &["prevResult"]);
                delegate::run(call, Verb::Del, &it.plugin, &it.config)?;
            }
            None => eprintln!(
                "flannel: {} is malformed and flanneld is not ready: the delegate is not called",
                found.path().display()
            ),
        }
        found.remove()
    }

    fn check(&self, call: &Call) -> Result<()> {
        let config = Config::load(call)?;
        let saved = Saved::of(&config.data_dir, call).read()?;
        let mut delegate = match saved.and_then(|found| found.delegate()) {
            Some(delegate) => delegate,
            None => plan(call, &config)?,
        };
        delegate.copy_from(
            call.config(),
            &["prevResult", "cniVersion", "runtimeConfig"],
        );
        delegate::run(call, Verb::Check, &delegate.plugin, &delegate.config)
    }

    fn status(&self, call: &Call) -> Result<()> {
        let config = Config::load(call)?;
        let planned = plan(call, &config).map_err(|e| match e.code {
            code::TRY_AGAIN => Error {
                code: code::NOT_AVAILABLE,
                ..e
            },
            _ => e,
        })?;
        delegate::run(call, Verb::Status, &planned.plugin, &planned.config)
    }

    fn gc(&self, call: &Call) -> Result<()> {
        let config = Config::load(call)?;
        let valid = call.valid_attachments()?;
        let mut planned = plan(call, &config)?;
        planned.copy_from(
            call.config(),
            &["cni.dev/valid-attachments", "cni.dev/attachments"],
        );
        delegate::run(call, Verb::Gc, &planned.plugin, &planned.config)?;
        saved::remove_stale(&config.data_dir, &call.network, &valid)
    }
}

/// The delegate's configuration as the node's lease has it now.
fn plan(call: &Call, config: &Config) -> Result<Delegate> {
    let env = SubnetEnv::load(&config.subnet_file)?;
    plan::plan(config, &env, &call.network)
}

impl Delegate {
    fn copy_from(&mut self, config: &Value, keys: &[&str]) {
        for key in keys {
            if let (Some(value), Some(own)) = (config.get(*key), self.config.as_object_mut()) {
                own.insert((*key).to_owned(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
