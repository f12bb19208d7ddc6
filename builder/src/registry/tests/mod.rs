//! The client against registries: one with faults, and the reference one.

mod auth;
mod layout;
mod pull;
mod push;
mod reference;
mod resolve;
mod tls;
