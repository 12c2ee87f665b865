//! The parts of one process: each on a thread of its own, started again when it fails.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;

/// How long a part may take to end.
const FAREWELL: Duration = Duration::from_secs(8);
/// Before a part is started again: doubled each time, up to the second; the first again after a while without failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
const CALM: Duration = Duration::from_secs(120);

/// Tells parts to end.
#[derive(Clone)]
pub struct End(watch::Receiver<bool>);

impl End {
    /// Comes when it is time.
    pub async fn wait(mut self) {
        // A sender that is gone has nothing more to say: the process ends.
        let _ = self.0.wait_for(|end| *end).await;
    }

    fn come(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// A part: its name, and its life until the end comes.
pub struct Part {
    name: &'static str,
    run: Box<dyn Fn(End) -> anyhow::Result<()> + Send>,
}

impl Part {
    /// A part that runs on a current-thread runtime.
    pub fn new<F>(name: &'static str, run: impl Fn(End) -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let run = move |end: End| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("start the runtime")?;
            let done = runtime.block_on(run(end));
            // Threads that still wait for the kernel or a disk do not hold the process.
            runtime.shutdown_timeout(Duration::from_millis(200));
            done
        };
        Self {
            name,
            run: Box::new(run),
        }
    }

    fn live(&self, end: &End) {
        let mut pause = PAUSE.0;
        loop {
            let began = Instant::now();
            let done = (self.run)(end.clone());
            if end.come() {
                if let Err(error) = done {
                    tracing::warn!("{}: {error:#}", self.name);
                }
                return;
            }
            if began.elapsed() > CALM {
                pause = PAUSE.0;
            }
            match done {
                Ok(()) => tracing::error!("{} has ended; it starts again in {pause:?}", self.name),
                Err(error) => {
                    tracing::error!("{}: {error:#}; it starts again in {pause:?}", self.name)
                }
            }
            wait(end, pause);
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

fn wait(end: &End, pause: Duration) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !end.come() {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs parts until `end` comes.
///
/// # Errors
/// A thread could not be started.
pub async fn run(parts: Vec<Part>, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (tell, told) = watch::channel(false);
    let done = Arc::new(tokio::sync::Semaphore::new(0));
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    for part in parts {
        let (end, done) = (End(told.clone()), Arc::clone(&done));
        thread::Builder::new()
            .name(part.name.to_owned())
            .spawn(move || {
                part.live(&end);
                done.add_permits(1);
            })
            .context("start a thread")?;
    }
    end.await;
    // Parts that have ended already have nobody to tell.
    let _ = tell.send(true);
    if tokio::time::timeout(FAREWELL, done.acquire_many(count))
        .await
        .is_err()
    {
        tracing::warn!("some part has not ended within {FAREWELL:?}");
    }
    Ok(())
}
