//! The state space model: the protocol as a state machine that [stateright](https://www.stateright.rs) explores
//! completely, under every fault of DynamoDB, the network and the clocks.
//!
//! - A transaction locks its items and is decided at once. Then its items become visible one by one, in any order. Until
//!   an item is visible, readers get its old version and other writers get a conflict.
//! - A caller can time out. Its request then arrives later, or never. A response can get lost.
//! - Crashes need no action: because no step is mandatory, every state also covers a caller that stops there.
//! - Clocks are off by the skew that a [`worlds::World`] sets.

mod counterexample;
mod event;
mod explore;
mod invariants;
mod model;
mod mutations;
mod start_call;
mod start_steps;
mod state;
mod worlds;
