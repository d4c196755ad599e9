//! Pages for people: the demo.

pub mod demo;
