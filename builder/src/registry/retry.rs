//! Which failures are worth another try, and how long to wait before it (features.md 7.2).

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;

use super::error::{RegistryError, TransportError};

/// Tries in all, as containerd makes them.
const MAX_ATTEMPTS: u32 = 5;
/// The longest wait that we grant a registry: beyond it a build only seems to hang.
const MAX_PAUSE: u32 = 60;

/// How long pauses are. No randomness: a build has few connections to one registry.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause, and what a registry's seconds last; tests make it tiny.
    pub unit: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            unit: Duration::from_secs(1),
        }
    }
}

/// Whether and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail again.
    No,
    /// After the next pause: 1, 2, 4, 8 units.
    Pause,
    /// After as many units as the registry asks for.
    After(u32),
}

/// The tries made for one thing.
#[derive(Debug)]
pub(crate) struct Attempts {
    backoff: Backoff,
    failed: u32,
}

impl Attempts {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { backoff, failed: 0 }
    }

    /// Forgets failures, because the last try got somewhere.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try, or gives the error back if there shall be none.
    pub(crate) async fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let retry = Retry::of(&error);
        let units = match retry {
            Retry::No => return Err(error),
            Retry::Pause => 1 << self.failed.min(MAX_ATTEMPTS),
            Retry::After(seconds) => seconds.max(1),
        };
        self.failed += 1;
        if self.failed >= MAX_ATTEMPTS || units > MAX_PAUSE {
            return Err(error);
        }
        tracing::debug!(error = %error, units, "retrying");
        tokio::time::sleep(self.backoff.unit * units).await;
        Ok(())
    }
}

impl Retry {
    /// What to do about an error.
    pub(crate) fn of(error: &RegistryError) -> Self {
        match error {
            RegistryError::Resolve { source, .. } => Self::of(source),
            RegistryError::Status {
                status,
                retry_after,
                ..
            } => Self::of_status(*status, *retry_after),
            RegistryError::Transport(error) => Self::of_transport(error),
            RegistryError::Auth(error) => match error.transport() {
                Some(error) => Self::of(error),
                None => Self::No,
            },
            RegistryError::NotFound { .. }
            | RegistryError::Offline { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Config(_)
            | RegistryError::Size { .. }
            | RegistryError::Blob { .. }
            | RegistryError::Io { .. }
            | RegistryError::Document { .. }
            | RegistryError::Contradiction { .. }
            | RegistryError::Unsupported { .. }
            | RegistryError::NoPlatform { .. } => Self::No,
        }
    }

    fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Self {
        let may_pass = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        ) || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED);
        match retry_after {
            Some(wait) if may_pass => {
                Self::After(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX))
            }
            None if may_pass => Self::Pause,
            Some(_) | None => Self::No,
        }
    }

    fn of_transport(error: &TransportError) -> Self {
        match error {
            TransportError::Request { source, .. } => Self::of_request(source),
            TransportError::Body { .. }
            | TransportError::Short { .. }
            | TransportError::Stalled { .. } => Self::Pause,
            TransportError::TooLong { .. }
            | TransportError::Redirect { .. }
            | TransportError::Range { .. }
            | TransportError::Source { .. } => Self::No,
        }
    }

    /// A connection that cannot be made (refused, no such host, bad certificate) will not be made in ten seconds
    /// either; one that broke may.
    fn of_request(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            return Self::No;
        }
        if !error.is_connect() || error.is_timeout() {
            return Self::Pause;
        }
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && is_broken_connection(io.kind())
            {
                return Self::Pause;
            }
            cause = error.source();
        }
        Self::No
    }
}

fn is_broken_connection(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use reqwest::Method;

    use super::*;

    fn status(code: u16, retry_after: Option<u64>) -> RegistryError {
        RegistryError::Status {
            method: Method::GET,
            url: "http://h/".into(),
            status: StatusCode::from_u16(code).unwrap(),
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn statuses() {
        let cases = [
            (status(500, None), Retry::Pause),
            (status(503, Some(3)), Retry::After(3)),
            (status(429, Some(7)), Retry::After(7)),
            (status(408, None), Retry::Pause),
            (status(501, None), Retry::No),
            (status(400, Some(1)), Retry::No),
            (status(429, Some(u64::MAX)), Retry::After(u32::MAX)),
        ];
        for (error, expected) in cases {
            assert_eq!(Retry::of(&error), expected, "{error}");
        }
    }

    #[tokio::test]
    async fn gives_up_after_five_tries() {
        let unit = Duration::from_millis(1);
        let mut attempts = Attempts::new(Backoff { unit });
        for _ in 0..4 {
            attempts.pause(status(500, None)).await.unwrap();
        }
        attempts.pause(status(500, None)).await.unwrap_err();
        let mut attempts = Attempts::new(Backoff { unit });
        attempts.pause(status(429, Some(3600))).await.unwrap_err();
        attempts.pause(status(404, None)).await.unwrap_err();
    }
}
