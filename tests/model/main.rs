//! Searches for violations of the guarantees: an exhaustive model of the protocol, a simulation of the real code, and
//! mutants of both that the search must detect. docs/CORRECTNESS.md explains what each one covers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a failed unwrap is a failed test")]

mod expressions;
mod mutants;
mod output;
mod protocol;
mod simulation;
mod state_space;
