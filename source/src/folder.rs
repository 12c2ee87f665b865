//! Objects from a folder of manifests: `*.yaml`, `*.yml` and `*.json` directly in it, watched.
//!
//! Each look at the folder reads the files that have changed since the last one; the difference of
//! what they say is sent. A file that cannot be read keeps saying what it said last, a folder that
//! is away keeps everything: only a file that is seen to be gone takes its objects with it.

mod document;
mod files;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Consumer, Events, Said};
use files::{Files, Look, look, look_at_some, plan, plan_some};
use watch::Watch;

/// A look without cause, for what inotify does not see: files behind links, network file systems.
const SLOW_LOOK: Duration = Duration::from_secs(30);
/// While the folder is away there is nothing to watch.
const ABSENT_LOOK: Duration = Duration::from_secs(1);
/// At the latest after so long everything is looked at, whatever inotify names.
const WHOLE_LOOK: Duration = Duration::from_secs(2);
/// Objects in a batch, so that a large folder does not have to be copied at once.
const BATCH: usize = 1000;

/// A folder of manifests.
#[derive(Clone, Debug)]
pub struct Folder<C> {
    /// The folder; it may appear later.
    pub path: PathBuf,
    /// Who reads it.
    pub consumer: C,
}

impl<C: Consumer> Folder<C> {
    /// Sends news of the folder until nobody listens.
    pub async fn run(self, events: Events<C::Event>) {
        let mut watch = Watch::new();
        let mut said = Said::default();
        let mut files = Files::<C>::default();
        let mut interner = C::Interner::default();
        let mut listed = false;
        // Which files the next look is for; `None`: all.
        let mut names = None;
        let mut whole = Instant::now();
        loop {
            watch.cover(&self.path);
            let folder = self.clone();
            let before = files.clone();
            let mut texts = std::mem::take(&mut interner);
            let some = names.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let found = match &some {
                    // Files of a folder that is gone are not gone.
                    Some(names) if folder.path.is_dir() => {
                        Ok(look_at_some(&folder, names, &before, &mut texts))
                    }
                    _ => look(&folder, &before, &mut texts),
                };
                (found, texts)
            });
            let found = match looked.await {
                Ok((found, texts)) => {
                    interner = texts;
                    found
                }
                Err(error) => Err(format!("the look at it was broken off: {error}")),
            };
            let pause = match found {
                Err(cause) => {
                    self.say_absent(&mut said, cause, listed);
                    ABSENT_LOOK
                }
                Ok(found) => {
                    if said.settle("folder") {
                        tracing::info!("folder {} is there again", self.path.display());
                    }
                    let pause = if found.unsettled || names.is_some() {
                        ABSENT_LOOK
                    } else {
                        SLOW_LOOK
                    };
                    let news = self.take_in(found, &mut said, &mut files, names.as_ref());
                    if self.send(&events, news, listed).await.is_err() {
                        return;
                    }
                    listed = true;
                    pause
                }
            };
            tokio::select! {
                stirred = watch.stirred(pause) => {
                    if names.is_none() {
                        whole = Instant::now();
                    }
                    // Steady changes do not put off the look at everything.
                    names = stirred.filter(|_| listed && whole.elapsed() < WHOLE_LOOK);
                }
                () = events.closed() => return,
            }
        }
    }

    fn say_absent(&self, said: &mut Said, cause: String, listed: bool) {
        for cause in said.news("folder", vec![cause]) {
            let effect = if listed {
                "what came from it stays"
            } else {
                "waiting for it"
            };
            tracing::warn!("read folder {}: {cause}; {effect}", self.path.display());
        }
    }

    /// Logs what a look has to complain of, and returns what has changed.
    fn take_in(
        &self,
        found: Look<C>,
        said: &mut Said,
        files: &mut Files<C>,
        names: Option<&BTreeSet<Arc<str>>>,
    ) -> Vec<C::Event> {
        for (name, problem) in found.problems {
            for line in said.news(&format!("problem {name}"), problem.into_iter().collect()) {
                tracing::warn!("{}: {line}", self.path.join(&*name).display());
            }
        }
        for (name, lines) in found.complaints {
            for line in said.news(&format!("complaints {name}"), lines) {
                tracing::warn!("{}: {line}", self.path.join(&*name).display());
            }
        }
        for (name, kinds) in found.ignored {
            let line = (!kinds.is_empty()).then(|| kinds.join(", "));
            for kinds in said.news(&format!("ignored {name}"), line.into_iter().collect()) {
                let path = self.path.join(&*name);
                tracing::info!("{}: no concern of {}: {kinds}", path.display(), C::NAME);
            }
        }
        if let Some(names) = names
            && let Some(news) = plan_some(files, &found.files, names)
        {
            *files = found.files;
            return news;
        }
        let (news, doubles) = plan(files, &found.files);
        for line in said.news("doubles", doubles) {
            tracing::warn!("folder {}: {line}", self.path.display());
        }
        *files = found.files;
        news
    }

    /// The first time as a list of each kind.
    async fn send(
        &self,
        events: &Events<C::Event>,
        news: Vec<C::Event>,
        listed: bool,
    ) -> Result<(), ()> {
        let gone = |_| ();
        let kinds = || self.consumer.kinds().into_iter();
        if !listed {
            let restarted = kinds().map(C::restarted).collect();
            events.send(restarted).await.map_err(gone)?;
        }
        let mut news = news.into_iter();
        loop {
            let batch: Vec<_> = news.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            events.send(batch).await.map_err(gone)?;
        }
        if !listed {
            let whole = kinds().map(C::listed).collect();
            events.send(whole).await.map_err(gone)?;
        }
        Ok(())
    }
}
