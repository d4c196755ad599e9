//! How many streams a user had at each start, and would have had if nothing had been denied or evicted.

use super::history::{History, Session, SessionEnd};
use super::model::Level;
use super::record::{Entry, Reason, StartResult};

/// Starts and users by the number of concurrent streams.
pub(super) struct LevelTally(Vec<Level>);

/// The highest numbers of concurrent streams of one user.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Highest {
    pub attempted: usize,
    pub reached: usize,
}

/// One more than the service admits. More streams count as this number.
const MAX_LEVEL: usize = 51;

impl LevelTally {
    pub fn new() -> Self {
        Self(vec![Level::default(); MAX_LEVEL + 1])
    }

    pub fn add_user(&mut self, history: &History<'_>) -> Highest {
        let (mut highest, mut live) = (Highest::default(), Vec::<usize>::new());
        for (index, start) in history.starts() {
            let now_ms = history.records[index].time_ms;
            live.retain(|session| history.sessions[*session].is_live_at(index, now_ms));
            let begun = history.session_of[index].filter(|session| history.sessions[*session].first_event == index);
            if start.result != StartResult::Replayed || begun.is_some() {
                let ended_for = |reason: Reason| {
                    let of =
                        |session: &&usize| ended_by(history, &history.sessions[**session], index) == Some(reason);
                    live.iter().filter(of).count()
                };
                let attempted = (live.len() + 1 - ended_for(Reason::Replaced)).min(MAX_LEVEL);
                highest.attempted = highest.attempted.max(attempted);
                self.0[attempted].starts_attempted += 1;
                if start.result != StartResult::Denied {
                    let reached = attempted.saturating_sub(ended_for(Reason::Evicted));
                    highest.reached = highest.reached.max(reached);
                    self.0[reached].starts_reached += 1;
                }
            }
            live.extend(begun);
        }
        if highest.attempted > 0 {
            self.0[highest.attempted].users_attempted += 1;
            self.0[highest.reached].users_reached += 1;
        }
        highest
    }

    /// The levels from 1 to the highest one.
    pub fn finish(self) -> Vec<Level> {
        let last = self.0.iter().rposition(|level| level.starts_attempted > 0).unwrap_or(0);
        let levels = self.0.into_iter().enumerate().take(last + 1).skip(1);
        levels.map(|(streams, level)| Level { streams, ..level }).collect()
    }
}

/// The reason for which the start with this index ended the session, if it did.
fn ended_by(history: &History<'_>, session: &Session, index: usize) -> Option<Reason> {
    let SessionEnd::Event { index: end, reason } = session.end else { return None };
    match (&history.records[end].entry, &history.records[index].entry) {
        (Entry::End(end), Entry::Start(start)) if end.by_start == Some(start.stream_id) => Some(reason),
        _ => None,
    }
}
