//! Searches for violations of the guarantees, with an exhaustive model of the protocol and with a simulation of the
//! real code. Mutants check that both searches detect errors. docs/CORRECTNESS.md explains what each part covers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a failed unwrap is a failed test")]

mod expressions;
mod mutants;
mod output;
mod protocol;
mod simulation;
mod state_space;
