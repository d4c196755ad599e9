//! Examples and properties of the rules for requests that end streams.

use proptest::prelude::*;

use super::properties::any_state;
use super::*;
use crate::domain::admission::end::{EndCommit, EndRequest, Selection, decide_end};
use crate::domain::names::Message;

fn request(selection: Selection) -> EndRequest {
    EndRequest { selection, message: None, terms: TERMS }
}

fn end_on(members: &[StreamId], leases: &[Lease], selection: Selection) -> Option<EndCommit> {
    let guard = Guard { revision: Some(7), stored_limit: StreamLimit::new(5) };
    decide_end(&Snapshot { guard, members, leases }, &request(selection), NOW)
}

fn marked(commit: &EndCommit) -> Vec<StreamId> {
    commit.change.ended.iter().map(|ended| ended.stream_id).collect()
}

fn ids(leases: &[Lease]) -> Vec<StreamId> {
    leases.iter().map(|lease| lease.stream_id).collect()
}

fn limit(limit: u64) -> StreamLimit {
    StreamLimit::new(limit).unwrap()
}

#[test]
fn all_ends_every_stream_oldest_first() {
    let commit = end_on(&[id(1), id(2)], &[lease(1), lease(2)], Selection::All).unwrap();
    assert_eq!((marked(&commit), ids(&commit.ended)), (vec![id(2), id(1)], vec![id(2), id(1)]));
    assert_eq!((commit.change.members.len(), commit.new_limit), (0, None));
    assert_eq!(end_on(&[], &[ended_lease(1)], Selection::All), None);
}

#[test]
fn listed_ends_known_streams_and_ignores_other_ids() {
    let select = |ids: &[u8]| Selection::Listed(ids.iter().map(|n| id(*n)).collect());
    let members = [id(1), id(2)];
    let commit = end_on(&members, &[lease(1), lease(2), ended_lease(3)], select(&[77, 3, 1])).unwrap();
    assert_eq!((marked(&commit), commit.change.members), (vec![id(1)], BTreeSet::from([id(2)])));
    assert_eq!(end_on(&members, &[lease(1), lease(2)], select(&[])), None);
    assert_eq!(end_on(&members, &[lease(1), lease(2)], select(&[3])), None);
}

#[test]
fn expired_members_are_marked_and_not_reported() {
    let mut expired = lease(1);
    expired.expires_at = NOW;
    let commit = end_on(&[id(1), id(2)], &[expired, lease(2)], Selection::All).unwrap();
    assert_eq!((marked(&commit), ids(&commit.ended)), (vec![id(2), id(1)], vec![id(2)]));
}

#[test]
fn excess_stores_the_limit_and_ends_the_oldest_streams() {
    let members = [id(1), id(2), id(3)];
    let leases = [lease(1), lease(2), lease(3)];
    let excess = |n| end_on(&members, &leases, Selection::ExcessOver(limit(n)));
    let commit = excess(1).unwrap();
    assert_eq!((marked(&commit), commit.new_limit), (vec![id(3), id(2)], Some(limit(1))));
    assert_eq!(marked(&excess(0).unwrap()).len(), 3);
    assert_eq!(marked(&excess(4).unwrap()), [], "the limit changes and no stream ends");
    assert_eq!(excess(5), None, "this limit is already stored");
}

#[test]
fn termination_contains_the_message() {
    let message = Message::clean("Bye");
    let request = EndRequest { message: message.clone(), ..request(Selection::All) };
    let guard = Guard { revision: Some(7), stored_limit: None };
    let commit = decide_end(&Snapshot { guard, members: &[id(1)], leases: &[lease(1)] }, &request, NOW).unwrap();
    let ended = &commit.change.ended[0];
    let ended_by = Some(EndedBy { message, ..EndedBy::default() });
    assert_eq!(ended.termination, Termination { reason: EndReason::Evicted, ended_by });
    assert_eq!(ended.ttl_s, 1000 + 3600, "the retention begins now");
}

#[test]
fn end_prunes_oldest_ended_leases_but_no_members() {
    let ids = |ids: std::ops::Range<u8>| ids.map(id).collect::<Vec<_>>();
    let mut leases: Vec<Lease> = (11..70).map(ended_lease).collect();
    leases.push(lease(10));
    let pruned =
        |members: &[StreamId]| end_on(members, &leases, Selection::Listed(vec![id(10)])).unwrap().change.pruned;
    assert_eq!(pruned(&[id(10)]), ids(11..21));
    assert_eq!(pruned(&[id(10), id(11)]), ids(12..21));
}

#[test]
fn end_fits_one_dynamodb_transaction() {
    let leases: Vec<Lease> = (0..=250).map(lease).collect();
    let members: Vec<StreamId> = leases.iter().map(|lease| lease.stream_id).collect();
    let commit = end_on(&members, &leases, Selection::All).unwrap();
    assert_eq!((marked(&commit).len(), commit.change.dead, commit.change.pruned), (MAX_OTHER_LEASES, vec![], vec![]));
}

#[test]
fn erasure_deletes_the_leases_of_all_members() {
    let mut expired = lease(1);
    expired.expires_at = NOW;
    let leases = [expired, lease(2), lease(3), ended_lease(4)];
    let commit = end_on(&[id(1), id(2), id(3), id(5)], &leases, Selection::Erase).unwrap();
    assert_eq!((commit.erased, ids(&commit.ended)), (vec![id(1), id(2), id(3), id(5)], vec![id(3), id(2)]));
    let MembershipChange { members, dead, ended, pruned, .. } = commit.change;
    assert_eq!((members.len(), dead, ended, pruned), (0, vec![], vec![], vec![]));
    assert_eq!(end_on(&[], &leases, Selection::Erase), None);
}

fn any_selection() -> impl Strategy<Value = Selection> {
    prop_oneof![
        Just(Selection::All),
        Just(Selection::Erase),
        proptest::collection::vec(0u8..8, 0..4).prop_map(|ids| Selection::Listed(ids.into_iter().map(id).collect())),
        (0u64..5).prop_map(|n| Selection::ExcessOver(limit(n))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn end_changes_exactly_its_selection((members, leases, stored) in any_state(), selection in any_selection()) {
        let guard = Guard { revision: Some(1), stored_limit: StreamLimit::new(stored) };
        let commit = decide_end(&Snapshot { guard, members: &members, leases: &leases }, &request(selection.clone()), NOW);
        let stored_lease = |id: &StreamId| leases.iter().find(|lease| lease.stream_id == *id && lease.termination.is_none());
        let live: Vec<StreamId> =
            members.iter().copied().filter(|id| stored_lease(id).is_some_and(|lease| lease.is_live_at(NOW))).collect();
        let ended = commit.as_ref().map(|commit| ids(&commit.ended)).unwrap_or_default();
        prop_assert!(ended.iter().all(|id| live.contains(id)));
        match &selection {
            Selection::All | Selection::Erase => prop_assert_eq!(ended.len(), live.len()),
            Selection::Listed(ids) => {
                prop_assert_eq!(ended.len(), live.iter().filter(|id| ids.contains(id)).count());
                prop_assert!(ended.iter().all(|id| ids.contains(id)));
            }
            Selection::ExcessOver(limit) => {
                prop_assert_eq!(ended.len(), live.len().saturating_sub(limit.get().into()));
                let unchanged = u64::from(limit.get()) == stored && members.len() <= usize::from(limit.get());
                prop_assert_eq!(commit.is_none(), unchanged);
            }
        }
        if let Some(commit) = commit {
            let marked: Vec<StreamId> = commit.change.ended.iter().map(|ended| ended.stream_id).collect();
            prop_assert!(marked.iter().all(|id| members.contains(id) && stored_lease(id).is_some()));
            prop_assert!(commit.change.dead.iter().all(|id| members.contains(id) && !live.contains(id)));
            let mut after: Vec<StreamId> = commit.change.members.iter().copied().collect();
            after.extend(marked.into_iter().chain(commit.change.dead).chain(commit.erased));
            after.sort();
            let mut before = members.clone();
            before.sort();
            prop_assert_eq!(after, before, "every member is kept, dead, ended or erased, exactly once");
        }
    }
}
