//! Taking a lock whoever held it last.

pub(crate) use cache::lock::locked;
