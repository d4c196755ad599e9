//! Answers that were so at no instant of their calls: the oracle sees them.

use stream_manager::domain::names::UserName;

use super::*;

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 8, retention_s: 10 };

fn lease(n: u8) -> Lease {
    let expires_at = TERMS.expires_at(NOW);
    Lease {
        stream_id: StreamId::random([n; 16]),
        device_id: None,
        device_name: None,
        content_id: None,
        fingerprint: None,
        started_at: NOW,
        expires_at,
        ttl_s: TERMS.ttl_s(expires_at),
        termination: None,
    }
}

fn holding<const N: usize>(leases: [Lease; N]) -> Arc<State> {
    let members = leases.iter().map(|lease| lease.stream_id).collect();
    let leases = leases.into_iter().map(|lease| (lease.stream_id, lease)).collect();
    Arc::new(State { own_limit: None, members, leases })
}

fn rule(states: &[Arc<State>], verb: Verb, answer: Answer) -> Option<Rule> {
    let default_limit = StreamLimit::new(2).expect("a limit");
    let window = Window { states, default_limit, terms: TERMS };
    let ask = Ask { user: UserName::parse("ann").expect("a name"), verb };
    window.check(&ask, &answer).err().map(|violation| violation.rule)
}

fn at<T>(answer: T) -> Timestamped<T> {
    Timestamped { now: NOW, value: answer }
}

#[test]
fn an_ending_of_a_stream_that_lives_is_seen() {
    let (none, one, id) = (holding([]), holding([lease(1)]), lease(1).stream_id);
    for answer in [StreamState::NotFound, StreamState::Inactive(lease(1))] {
        let beat = || Answer::Beat(at(answer.clone()));
        assert_eq!(rule(&[Arc::clone(&one)], Verb::Beat(id), beat()), Some(Rule::EndingUnfounded));
    }
    let gone = || Answer::Beat(at(StreamState::NotFound));
    assert_eq!(rule(&[Arc::clone(&one), none], Verb::Beat(id), gone()), None);
}

#[test]
fn a_success_that_is_not_stored_is_seen() {
    let (none, one, id) = (holding([]), holding([lease(1)]), lease(1).stream_id);
    let live = || Answer::Beat(at(StreamState::Live(lease(1))));
    assert_eq!(rule(&[Arc::clone(&none)], Verb::Beat(id), live()), Some(Rule::SuccessUnfounded));
    assert_eq!(rule(&[Arc::clone(&one)], Verb::Beat(id), live()), None);
    let (stop, freed) = (|| Verb::Stop(id, StoppedBy::Player), || Answer::Stop(Stop::Freed));
    assert_eq!(rule(&[Arc::clone(&one)], stop(), freed()), Some(Rule::SuccessUnfounded));
    assert_eq!(rule(&[one, none], stop(), freed()), None);
}

#[test]
fn a_start_that_answers_other_endings_than_it_wrote_is_seen() {
    let start = |ended: &[u8]| {
        let limit = StreamLimit::new(2).expect("a limit");
        let ended = ended.iter().map(|n| lease(*n).stream_id).collect();
        let started = Started { lease: lease(1), limit, ended, evicted: 0, reaped: 0 };
        Answer::Start(at(StartOutcome::Started(started)))
    };
    let states = [holding([]), holding([lease(1)])];
    let verb = || Verb::Start(StartOptions::default(), None);
    assert_eq!(rule(&states, verb(), start(&[])), None);
    assert_eq!(rule(&states, verb(), start(&[2])), Some(Rule::SuccessUnfounded));
    assert_eq!(rule(&states[1..], verb(), start(&[])), Some(Rule::SuccessUnfounded));
}

#[test]
fn a_list_of_other_streams_than_the_members_is_seen() {
    let list = |leases: &[Lease]| {
        let limit = StreamLimit::new(2).expect("a limit");
        Answer::List(at(Usage { limit, streams: leases.to_vec() }))
    };
    let states = [holding([lease(1)])];
    assert_eq!(rule(&states, Verb::List, list(&[lease(1)])), None);
    assert_eq!(rule(&states, Verb::List, list(&[lease(1), lease(2)])), Some(Rule::ListUnfounded));
    assert_eq!(rule(&states, Verb::List, list(&[])), Some(Rule::ListUnfounded));
}
