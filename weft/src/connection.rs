//! What `get`, `apply` and `delete` have in common: which server, where to write, and how to end.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use reconciler::client::Terminal;
use reconciler::client::failure::Failure;
use reconciler::client::session::{Session, Target};

/// Which server.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// How the server is reached; else the first file of $KUBECONFIG that exists, /var/lib/weft/admin.kubeconfig,
    /// ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace; else that of the kubeconfig's context.
    #[arg(short, long)]
    namespace: Option<String>,
}

impl Connection {
    /// Runs a command of the client to its end; whether all went well.
    pub fn run(
        &self,
        command: impl AsyncFnOnce(&mut Session<'_>) -> Result<(), Failure>,
    ) -> anyhow::Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        let target = Target {
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone(),
        };
        let (mut out, mut err) = (io::stdout(), io::stderr());
        let terminal = Terminal::new(&mut out, &mut err);
        runtime.block_on(async {
            let mut session = match Session::open(&target, terminal).await {
                Ok(session) => session,
                Err((failure, mut terminal)) => {
                    terminal.complain(&failure);
                    return Ok(false);
                }
            };
            if let Err(failure) = command(&mut session).await {
                session.terminal.complain(&failure);
            }
            Ok(!session.terminal.failed())
        })
    }
}
