//! Numbers for the sources of events, so that a record does not repeat the name of its instance.

use std::collections::HashMap;

#[derive(Default)]
pub(super) struct SourceNames(HashMap<Box<str>, u32>);

/// Sources beyond this number share one number. Then events of the same millisecond may be in the wrong order.
const MAX_SOURCES: usize = 100_000;

impl SourceNames {
    pub fn number(&mut self, source: &str) -> u32 {
        if let Some(number) = self.0.get(source) {
            return *number;
        }
        let number = self.0.len().min(MAX_SOURCES);
        if number < MAX_SOURCES {
            self.0.insert(source.into(), number as u32);
        }
        number as u32
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The position of each number in the alphabetical order of the names, so that the order of the files does not matter.
    pub fn ranks(&self) -> Vec<u32> {
        let mut names: Vec<(&str, u32)> = self.0.iter().map(|(name, number)| (&**name, *number)).collect();
        names.sort_unstable();
        let mut ranks = vec![u32::MAX; MAX_SOURCES.min(names.len()) + 1];
        for (rank, (_, number)) in names.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        ranks
    }
}
