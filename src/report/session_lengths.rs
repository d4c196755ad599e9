//! Sessions by their length.

use super::history::{Session, SessionEnd};
use super::model::{LengthClass, Sessions, percent};

#[derive(Default)]
pub(super) struct SessionLengths {
    watching_ms: u128,
    /// For each class, the sessions with a known and with an assumed end.
    classes: [[u64; 2]; CLASSES.len()],
}

/// The shortest length in each class, in seconds.
const CLASSES: [u64; 8] = [0, 60, 5 * 60, 15 * 60, 30 * 60, 3600, 2 * 3600, 4 * 3600];

impl SessionLengths {
    pub fn add(&mut self, session: &Session) {
        let length_ms = u64::try_from(session.length_ms()).unwrap_or(0);
        let class = CLASSES.partition_point(|from_s| *from_s <= length_ms / 1000) - 1;
        self.classes[class][usize::from(session.end == SessionEnd::Assumed)] += 1;
        self.watching_ms += u128::from(length_ms);
    }

    pub fn finish(self) -> Sessions {
        let sum = |kind: usize| self.classes.iter().map(|class| class[kind]).sum::<u64>();
        let (known, assumed) = (sum(0), sum(1));
        let class = |(index, counts): (usize, &[u64; 2])| LengthClass {
            from_seconds: CLASSES[index],
            below_seconds: CLASSES.get(index + 1).copied(),
            known_ends: counts[0],
            assumed_ends: counts[1],
        };
        Sessions {
            count: known + assumed,
            watching_seconds: u64::try_from(self.watching_ms / 1000).unwrap_or(u64::MAX),
            assumed_ends: assumed,
            assumed_ends_percent: percent(assumed, known + assumed),
            by_length: self.classes.iter().enumerate().map(class).collect(),
        }
    }
}
