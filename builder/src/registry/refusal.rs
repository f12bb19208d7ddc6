//! What an answer means that is no success, and which of several failures is told.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;

use super::error::RegistryError;
use super::reply::Reply;

/// Error documents are short; longer ones are cut off.
pub(crate) const MAX_ERROR: usize = 64 << 10;
/// What of a registry's message is shown.
const MAX_MESSAGE: usize = 400;

/// The failure that tells most, of those of several hosts: a refusal, then "not found", then a host that did not answer (as
/// containerd weighs them).
#[derive(Debug, Default)]
pub(crate) struct Failure(Option<RegistryError>);

impl Failure {
    pub(crate) fn add(&mut self, error: RegistryError) {
        let is_heavier = |old: &RegistryError| weight(&error) > weight(old);
        if self.0.as_ref().is_none_or(is_heavier) {
            self.0 = Some(error);
        }
    }

    pub(crate) fn into_error(self, name: &str) -> RegistryError {
        let nobody = || RegistryError::NotFound {
            name: name.to_owned(),
        };
        self.0.unwrap_or_else(nobody)
    }
}

fn weight(error: &RegistryError) -> u8 {
    match error {
        RegistryError::Transport(_) => 0,
        RegistryError::NotFound { .. } => 2,
        RegistryError::Status { .. } | RegistryError::Denied { .. } => 3,
        RegistryError::Offline { .. }
        | RegistryError::Resolve { .. }
        | RegistryError::Auth(_)
        | RegistryError::Config(_)
        | RegistryError::Size { .. }
        | RegistryError::Blob { .. }
        | RegistryError::Io { .. }
        | RegistryError::Document { .. }
        | RegistryError::Contradiction { .. }
        | RegistryError::Unsupported { .. }
        | RegistryError::NoPlatform { .. } => 1,
    }
}

/// What an answer that is no success means.
pub(crate) async fn refusal(reply: Reply, name: &str, action: &'static str) -> RegistryError {
    let status = reply.status();
    let (method, url) = (reply.method.clone(), reply.shown.clone());
    let retry_after = retry_after(&reply);
    // The message is a courtesy: that it cannot be read is no news beside the status.
    let body = reply.document(MAX_ERROR).await.unwrap_or_default();
    let message = message(&body);
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound {
            name: name.to_owned(),
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Denied { action, message }
        }
        _ => RegistryError::Status {
            method,
            url,
            status,
            message,
            retry_after,
        },
    }
}

/// `Retry-After` in seconds; its form as a date is rare and ignored.
pub(crate) fn retry_after(reply: &Reply) -> Option<Duration> {
    let seconds = reply.header(RETRY_AFTER.as_str())?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words (distribution spec, "Error Codes"), as containerd shows them: `denied: no such user`.
fn message(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<ErrorDocument>(body) else {
        return String::new();
    };
    let entries = document.errors.iter().map(|entry| {
        let code = entry.code.to_ascii_lowercase().replace('_', " ");
        match (code.is_empty(), entry.message.is_empty()) {
            (_, true) => code,
            (true, false) => entry.message.clone(),
            (false, false) => format!("{code}: {}", entry.message),
        }
    });
    let text = entries.collect::<Vec<_>>().join("; ");
    let printable = text.chars().filter(|char| !char.is_control());
    printable.take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::error::TransportError;

    #[test]
    fn the_weightiest_failure_is_told_and_of_equal_ones_the_first() {
        let not_found = |name: &str| RegistryError::NotFound { name: name.into() };
        let short = || RegistryError::from(TransportError::Short { url: "u".into() });
        let denied = || RegistryError::Denied {
            action: "pull",
            message: String::new(),
        };
        let cases = [
            (
                vec![short(), not_found("a"), not_found("b")],
                "a: not found",
            ),
            (vec![not_found("a"), short()], "a: not found"),
            (vec![not_found("a"), denied()], "pull access denied"),
            (vec![denied(), not_found("a")], "pull access denied"),
            (vec![], "nobody: not found"),
        ];
        for (errors, expected) in cases {
            let mut failure = Failure::default();
            errors.into_iter().for_each(|error| failure.add(error));
            let text = failure.into_error("nobody").to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn messages() {
        let cases = [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\nway"}]}"#,
                "denied: noway",
            ),
            (
                r#"{"errors":[{"code":"TOO_MANY_REQUESTS"}]}"#,
                "too many requests",
            ),
            (
                r#"{"errors":[{"code":"A","message":"b"},{"message":"c"}]}"#,
                "a: b; c",
            ),
            ("<html>", ""),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body.as_bytes()), expected);
        }
    }
}
