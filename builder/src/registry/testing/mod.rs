//! What the tests of this module share: a registry with faults, the reference registry, a store in memory, images.

pub(crate) mod certificates;
pub(crate) mod daemon;
pub(crate) mod faulty;
pub(crate) mod memory;
pub(crate) mod sample;

use std::sync::Arc;
use std::time::Duration;

use frontend::reference::Reference;

use super::client::Client;
use super::config::{CredentialSources, RegistriesSource, RegistryConfig, Secret};
use super::credentials::ConfiguredCredentials;
use super::retry::Backoff;
use super::transport::Timeouts;
pub(crate) use crate::text::chain;

/// A client that repeats at once.
pub(crate) fn client(config: RegistryConfig) -> Client {
    patient(config, Duration::from_secs(20))
}

/// A client that repeats at once and waits so long for the next bytes.
pub(crate) fn patient(config: RegistryConfig, stall: Duration) -> Client {
    let credentials = ConfiguredCredentials::new(config.credentials.clone());
    let unit = Duration::from_millis(2);
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        stall,
        commit: Duration::from_secs(5),
    };
    Client::with_patience(config, Arc::new(credentials), Backoff { unit }, timeouts)
}

/// A configuration with one user for one registry.
pub(crate) fn logged_in(registry: &str, user: &str, password: &str) -> RegistryConfig {
    let auths = serde_json::json!({
        "auths": { registry: { "username": user, "password": password } }
    });
    RegistryConfig {
        credentials: CredentialSources {
            inline: Some(Secret::new(auths.to_string())),
            files: Vec::new(),
        },
        ..RegistryConfig::default()
    }
}

/// A configuration with a `registries.conf`; the folder must live as long as the configuration is used.
pub(crate) fn with_conf(text: &str) -> (RegistryConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registries.conf");
    std::fs::write(&path, text).unwrap();
    let config = RegistryConfig {
        registries: vec![RegistriesSource::Named(path)],
        ..RegistryConfig::default()
    };
    (config, dir)
}

/// A reference at a test registry.
pub(crate) fn reference(address: &str, name: &str) -> Reference {
    Reference::parse(&format!("{address}/{name}")).unwrap()
}
