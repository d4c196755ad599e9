//! Users by the number of their devices, and starts by the name of the device.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use super::error::ReportError;
use super::model::{self, DeviceNameUse, UsersByDevices};
use super::partitions::Partitions;
use super::record::{Start, StartResult};

pub(super) struct DeviceTally {
    users: [u64; MAX_DEVICES + 1],
    starts_without_id: u64,
    starts_without_name: u64,
    /// The uses of names by user. Players choose the names, so there can be as many names as starts.
    names: Partitions,
    hasher: RandomState,
}

/// The devices of one user.
#[derive(Default)]
pub(super) struct UserDevices<'a> {
    ids: BTreeSet<&'a str>,
    /// By name: starts, and starts that were denied or over the limit.
    names: BTreeMap<&'a str, (u64, u64)>,
}

/// Users with this number of devices and users with more are counted together.
pub(super) const MAX_DEVICES: usize = 10;
const MAX_NAMES: usize = 20;

impl<'a> UserDevices<'a> {
    pub fn add(&mut self, start: &Start<'a>, tally: &mut DeviceTally) {
        match start.device_id {
            Some(id) => _ = self.ids.insert(id),
            None => tally.starts_without_id += 1,
        }
        match start.device_name {
            Some(name) => {
                let (starts, exceeding) = self.names.entry(name).or_default();
                *starts += 1;
                *exceeding += u64::from(matches!(start.result, StartResult::Denied | StartResult::OverLimit));
            }
            None => tally.starts_without_name += 1,
        }
    }

    pub fn count(&self) -> usize {
        self.ids.len()
    }
}

impl DeviceTally {
    pub fn new(partition_bytes: u64) -> Self {
        Self {
            users: Default::default(),
            starts_without_id: 0,
            starts_without_name: 0,
            names: Partitions::new(partition_bytes),
            hasher: RandomState::new(),
        }
    }

    /// `is_user` is false for a stream without a user.
    pub fn add_user(&mut self, devices: &UserDevices<'_>, is_user: bool) -> Result<(), ReportError> {
        if is_user {
            self.users[devices.ids.len().min(MAX_DEVICES)] += 1;
        }
        for (name, (starts, exceeding)) in &devices.names {
            self.names.push(self.hasher.hash_one(name), &(name, starts, exceeding))?;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<model::Devices, ReportError> {
        let mut top = Vec::new();
        self.names.for_each(&mut |_, entries| {
            let mut uses = BTreeMap::<&str, (u64, u64)>::new();
            for (_, entry) in entries {
                let (name, starts, exceeding): (&str, u64, u64) = postcard::from_bytes(entry)?;
                let sums = uses.entry(name).or_default();
                *sums = (sums.0 + starts, sums.1 + exceeding);
            }
            let name_use = |(name, (starts, exceeding)): (&str, (u64, u64))| {
                let device_name = name.to_owned();
                DeviceNameUse { device_name, starts, exceeding }
            };
            top.extend(uses.into_iter().map(name_use));
            top.sort_by(|a, b| b.starts.cmp(&a.starts).then_with(|| a.device_name.cmp(&b.device_name)));
            top.truncate(MAX_NAMES);
            Ok(())
        })?;
        let used =
            self.users.iter().rposition(|users| *users > 0).filter(|most| *most > 0).map_or(0, |most| most + 1);
        let users = self.users.iter().take(used).enumerate();
        Ok(model::Devices {
            users: users.map(|(devices, users)| UsersByDevices { devices, users: *users }).collect(),
            names: top,
            starts_without_id: self.starts_without_id,
            starts_without_name: self.starts_without_name,
        })
    }
}
