//! The OCI image config as far as Dockerfiles change it; unknown members survive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::graph::VertexId;
use crate::platform::Platform;

/// The `config` member of an image config, in the order that Docker writes it (features.md 5.4).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RuntimeConfig {
    /// `USER`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `EXPOSE`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// `ENV` as `K=V`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// `ENTRYPOINT`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `VOLUME`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// `WORKDIR`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `LABEL`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// `STOPSIGNAL`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Set by any CMD.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// `HEALTHCHECK`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// `ONBUILD`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// `SHELL`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Members that no instruction touches.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl RuntimeConfig {
    /// Reads the `config` member of an image config document. As in Go, `null` is the same as no member.
    ///
    /// # Errors
    ///
    /// If a member has another type than it must.
    pub fn from_document(document: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let Some(serde_json::Value::Object(members)) = document.get("config") else {
            return Ok(Self::default());
        };
        let given = members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_null(name, value)))
            .collect();
        let mut config: Self = serde_json::from_value(serde_json::Value::Object(given))?;
        config.forget_empty();
        Ok(config)
    }

    /// Empty lists and maps are no members, as with Go's `omitempty`.
    pub(crate) fn forget_empty(&mut self) {
        for list in [
            &mut self.env,
            &mut self.entrypoint,
            &mut self.cmd,
            &mut self.on_build,
            &mut self.shell,
        ] {
            list.take_if(|list| list.is_empty());
        }
        for map in [&mut self.exposed_ports, &mut self.volumes] {
            map.take_if(|map| map.is_empty());
        }
        self.labels.take_if(|labels| labels.is_empty());
    }
}

/// A health check's members may be `null`, too.
fn without_null(name: &str, value: &serde_json::Value) -> serde_json::Value {
    let mut value = value.clone();
    if let ("Healthcheck", Some(members)) = (name, value.as_object_mut()) {
        members.retain(|_, member| !member.is_null());
    }
    value
}

/// `{}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// As in Go, whatever stands there is nothing: some tools write `null`.
impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer)?;
        Ok(Self {})
    }
}

/// `Healthcheck`: times in nanoseconds, 0 is unset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `["CMD-SHELL", "…"]`, `["CMD", …]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Before failures count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between checks in the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures until unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// What lowering knows of the resulting image; the builder adds layers and times.
#[derive(Clone, Debug)]
pub struct DraftImage {
    /// The target platform; it goes into the config.
    pub platform: Platform,
    /// The base image's whole config document; `None` when built from scratch.
    pub base: Option<serde_json::Value>,
    /// The `config` member.
    pub config: RuntimeConfig,
    /// `MAINTAINER`, or the base's author.
    pub author: Option<String>,
    /// New history entries, in order, without those of the base.
    pub history: Vec<DraftHistory>,
}

/// A history entry to be.
#[derive(Clone, Debug)]
pub struct DraftHistory {
    /// `created_by`
    pub created_by: String,
    /// The vertex that makes its layer; `None` is `empty_layer`.
    pub vertex: Option<VertexId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_survive_and_null_is_nothing() {
        let document = serde_json::json!({"config": {
            "User": null, "Env": ["A=1"], "Cmd": [], "Domainname": "d", "Memory": 5,
            "Healthcheck": {"Test": ["NONE"], "Retries": null}, "Volumes": {"/v": null},
        }});
        let config = RuntimeConfig::from_document(&document).unwrap();
        assert_eq!(
            serde_json::to_value(&config).unwrap(),
            serde_json::json!({
                "Env": ["A=1"], "Volumes": {"/v": {}}, "Healthcheck": {"Test": ["NONE"]},
                "Domainname": "d", "Memory": 5,
            })
        );
        let empty = RuntimeConfig::from_document(&serde_json::json!({})).unwrap();
        assert_eq!(empty, RuntimeConfig::default());
        let wrong = serde_json::json!({"config": {"Env": 1}});
        assert!(RuntimeConfig::from_document(&wrong).is_err());
    }
}
