//! EXPOSE: ports, ranges and protocols.

use std::net::IpAddr;

/// Why a port is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortError {
    #[error("no port specified: {0}<empty>")]
    Missing(String),
    #[error("invalid proto: {0}")]
    Protocol(String),
    #[error("invalid IP address: {0}")]
    Address(String),
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges { container: String, host: String },
}

/// The ports of one word, `[ip:][host:]port[-port][/protocol]`, as `port/protocol`. Address and host port mean nothing
/// but are tolerated.
pub(super) fn parse_ports(word: &str) -> Result<Vec<String>, PortError> {
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::Missing(container.to_owned()));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        other => return Err(PortError::Protocol(other.to_owned())),
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(bare.to_owned()));
    }
    let (first, last) =
        parse_range(port).ok_or_else(|| PortError::ContainerPort(port.to_owned()))?;
    if !host.is_empty() {
        let (low, high) = parse_range(host).ok_or_else(|| PortError::HostPort(host.to_owned()))?;
        if last - first != high - low && first != last {
            return Err(PortError::Ranges {
                container: port.to_owned(),
                host: host.to_owned(),
            });
        }
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u16>().ok())
            .flatten()
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports() {
        for (word, want) in [
            ("80", "80/tcp"),
            ("80/TCP", "80/tcp"),
            ("53/udp", "53/udp"),
            ("8000-8002", "8000/tcp 8001/tcp 8002/tcp"),
            ("127.0.0.1:8080:80", "80/tcp"),
            ("[::1]:8080:80", "80/tcp"),
            ("8080-8081:80", "80/tcp"),
            ("65535-65535", "65535/tcp"),
            ("", "no port specified: <empty>"),
            ("/udp", "no port specified: /udp<empty>"),
            ("80/foo", "invalid proto: foo"),
            // All after the first slash is the protocol: what older BuildKits cut off silently is refused, as by newer ones.
            ("80/tcp/udp", "invalid proto: tcp/udp"),
            ("x", "invalid containerPort: x"),
            ("+80", "invalid containerPort: +80"),
            ("70000", "invalid containerPort: 70000"),
            ("82-80", "invalid containerPort: 82-80"),
            ("x:80", "invalid hostPort: x"),
            ("nope:1:80", "invalid IP address: nope"),
            (
                "1-3:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 1-3",
            ),
        ] {
            let got = parse_ports(word).map_or_else(|e| e.to_string(), |ports| ports.join(" "));
            assert_eq!(got, want, "{word}");
        }
    }
}
