//! A run: threads with their players, the progress bar, and what comes out of all of them. Judges nothing itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connections, Connector};
use crate::holds::{History, judge};
use crate::measurements::Measurements;
use crate::options::Options;
use crate::players::Player;
use crate::report::Report;
use crate::world::{Live, World};

type Outcome = (Measurements, Vec<History>);

/// Until its time is up or `end` is called; then in-flight requests are waited for.
pub async fn run(options: Options, end: CancellationToken) -> Result<Report, String> {
    let options = Arc::new(options);
    let connector = Connector::new(&options.base_url)?;
    let first = Connections::new(&options, connector.clone(), 1)?;
    LocalSet::new().run_until(first.try_one()).await?;
    let live = Arc::new(Live::default());
    let run = format!("load-{:08x}", fastrand::u32(..));
    let began = Instant::now();
    let mut outcomes = Vec::new();
    for thread in 0..options.threads() {
        let world = Part {
            thread,
            options: Arc::clone(&options),
            connector: connector.clone(),
            live: Arc::clone(&live),
            end: end.clone(),
            began,
            run: run.clone(),
        };
        let (sender, outcome) = oneshot::channel();
        let spawned = std::thread::Builder::new().name(format!("players-{thread}")).spawn(move || {
            _ = sender.send(world.play());
        });
        spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        outcomes.push(outcome);
    }
    let progress = tokio::spawn(show_progress(Arc::clone(&options), live, began));
    let (mut measurements, mut histories) = (Measurements::new(began), Vec::new());
    for outcome in outcomes {
        let (measured, seen) = outcome.await.map_err(|_| "a thread has failed".to_owned())??;
        measurements.add(&measured);
        histories.extend(seen);
    }
    progress.abort();
    let lasted = began.elapsed().min(options.duration);
    let verdict = judge(histories, options.limit, began, |user| World::user_name(&run, user));
    Ok(Report::new(&options, lasted, &measurements, verdict))
}

/// What one thread needs.
struct Part {
    thread: usize,
    options: Arc<Options>,
    connector: Connector,
    live: Arc<Live>,
    end: CancellationToken,
    began: Instant,
    run: String,
}

impl Part {
    /// On a runtime of its own: its players share connections and measurements without locks.
    fn play(self) -> Result<Outcome, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        let Self { thread, options, connector, live, end, began, run } = self;
        let (threads, players) = (options.threads(), options.players);
        let connections = Connections::new(&options, connector, share(options.connections, thread, threads))?;
        let world = Rc::new(World {
            connections,
            measurements: RefCell::new(Measurements::new(began)),
            live,
            end,
            until: began + options.duration,
            run,
            options: Arc::clone(&options),
        });
        let mine = (0..players).filter(|player| player / options.streams_per_user % threads == thread);
        let local = LocalSet::new();
        let playing: Vec<_> = mine
            .map(|player| {
                let first_start = began + options.ramp_up.mul_f64(player as f64 / players as f64);
                local.spawn_local(Player::new(Rc::clone(&world), player).play(first_start))
            })
            .collect();
        let histories = local.block_on(&runtime, async {
            let mut histories = Vec::with_capacity(playing.len());
            for player in playing {
                histories.push(player.await.map_err(|error| format!("a player has failed: {error}"))?);
            }
            Ok::<_, String>(histories)
        })?;
        let mut measurements = world.measurements.replace(Measurements::new(began));
        measurements.opened = world.connections.opened.get();
        Ok((measurements, histories))
    }
}

/// The part of a whole that falls to one of several, the first ones taking what is left over.
fn share(whole: usize, part: usize, parts: usize) -> usize {
    whole / parts + usize::from(part < whole % parts)
}

/// On standard error, and only where that is a terminal.
async fn show_progress(options: Arc<Options>, live: Arc<Live>, began: Instant) {
    let bar = ProgressBar::new(options.duration.as_secs());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut before = 0;
    loop {
        ticks.tick().await;
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let (answers, failures) = (read(&live.answers), read(&live.failures));
        bar.set_position(began.elapsed().as_secs().min(options.duration.as_secs()));
        bar.set_message(format!(
            "{}/s, {} playing, {} denials, {failures} failures",
            answers + failures - before,
            live.playing.load(Ordering::Relaxed),
            read(&live.denials)
        ));
        before = answers + failures;
    }
}
