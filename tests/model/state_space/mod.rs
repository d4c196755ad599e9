//! The state space model: the protocol as a state machine. [stateright](https://www.stateright.rs) explores all of its
//! states. The model includes the following behavior of DynamoDB, the network and the clocks:
//!
//! - A transaction succeeds or fails at once. After a success, its items stay locked and become visible one by one, in
//!   any order. Until an item is visible, readers get its old version and other writers get a conflict.
//! - A caller can time out before its request arrives. The request then arrives later, or never. A response can be
//!   lost.
//! - The model has no action for a crash. No step is mandatory, so a caller that takes no more steps represents a crash.
//! - Each call uses a clock with the skew that its [`worlds::World`] sets.
//! - TTL can delete the tombstone of an erased user at any moment, unless a request that was decided before the tombstone
//!   was written is still in flight.

mod call;
mod call_steps;
mod counterexample;
mod end_steps;
mod event;
mod explore;
mod invariants;
mod model;
mod mutations;
mod start_steps;
mod state;
mod worlds;
