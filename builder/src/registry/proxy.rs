//! Whether a request goes through a proxy: the rules of Go's `httpproxy`, which Docker users know.

use std::net::IpAddr;

use reqwest::Url;

use super::config::{ConfigError, ProxyConfig, Secret};
use super::hosts::is_loopback;

/// Proxies with parsed addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    Address(IpAddr, Option<u16>),
    Network(IpAddr, u8),
    /// The domain and what is below it.
    Domain(String, Option<u16>),
    /// Only what is below it.
    Below(String, Option<u16>),
}

impl Proxies {
    pub(crate) fn new(config: &ProxyConfig) -> Result<Self, ConfigError> {
        let exceptions = config.exceptions.as_deref().unwrap_or_default();
        Ok(Self {
            http: config.http.as_ref().map(address).transpose()?,
            https: config.https.as_ref().map(address).transpose()?,
            exceptions: exceptions.split(',').filter_map(Exception::parse).collect(),
        })
    }

    /// The proxy for an address; the loopback interface is never reached through one.
    pub(crate) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref()?,
            _ => self.http.as_ref()?,
        };
        let host = url.host_str()?;
        let port = url.port_or_known_default();
        let is_direct = is_loopback(host) || self.exceptions.iter().any(|e| e.covers(host, port));
        (!is_direct).then_some(proxy)
    }
}

/// An address without a scheme is an `http` one.
fn address(secret: &Secret) -> Result<Url, ConfigError> {
    let text = secret.reveal();
    let parsed = match text.contains("://") {
        true => Url::parse(text),
        false => Url::parse(&format!("http://{text}")),
    };
    let shown = || text.rsplit('@').next().unwrap_or_default().to_owned();
    match parsed {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) | Err(_) => Err(ConfigError::Proxy { address: shown() }),
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Some((network, bits)) = text.split_once('/') {
            return Some(Self::Network(network.parse().ok()?, bits.parse().ok()?));
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(ip, None));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(ip) = name.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(ip, port));
        }
        let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        Some(match below {
            Some(domain) => Self::Below(domain.to_owned(), port),
            None => Self::Domain(name.to_owned(), port),
        })
    }

    fn covers(&self, host: &str, port: Option<u16>) -> bool {
        let ip = || host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let fits = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        let is_below = |domain: &str| {
            let rest = host.strip_suffix(domain);
            rest.is_some_and(|rest| rest.ends_with('.'))
        };
        match self {
            Self::Everything => true,
            Self::Address(address, wanted) => ip() == Some(*address) && fits(wanted),
            Self::Network(network, bits) => ip().is_some_and(|ip| contains(*network, *bits, ip)),
            Self::Domain(domain, wanted) => (host == domain || is_below(domain)) && fits(wanted),
            Self::Below(domain, wanted) => is_below(domain) && fits(wanted),
        }
    }
}

fn contains(network: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let (network, ip, width) = match (network, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let shift = u32::saturating_sub(width, u32::from(bits));
    // A shift by the whole width leaves nothing: a network of 0 bits has every address.
    let prefix = |address: u128| address.checked_shr(shift).unwrap_or(0);
    prefix(network) == prefix(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions() {
        let cases = [
            ("", "http://a.example/", true),
            ("*", "http://a.example/", false),
            ("a.example", "http://a.example/", false),
            ("a.example", "http://b.a.example/", false),
            ("a.example", "http://ba.example/", true),
            (".a.example", "http://a.example/", true),
            ("*.a.example", "http://b.a.example/", false),
            ("x, a.example:80", "http://a.example/", false),
            ("a.example:81", "http://a.example/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://11.1.2.3/", true),
            ("0.0.0.0/0", "http://11.1.2.3/", false),
            ("fd00::/8", "http://[fd12::1]/", false),
            ("10.1.2.3", "http://10.1.2.3:99/", false),
            ("nonsense/x", "http://10.1.2.3:99/", true),
            ("", "http://localhost:5000/", false),
            ("", "http://127.0.0.1/", false),
            ("", "https://a.example/", false),
        ];
        for (exceptions, url, is_proxied) in cases {
            let proxies = Proxies::new(&ProxyConfig {
                http: Some(Secret::new("p.example:3128")),
                https: None,
                exceptions: Some(exceptions.into()),
            });
            let url = Url::parse(url).unwrap();
            let proxies = proxies.unwrap();
            assert_eq!(proxies.of(&url).is_some(), is_proxied, "{exceptions} {url}");
        }
    }

    #[test]
    fn addresses() {
        let error = address(&Secret::new("socks5://user:secret@p:1"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "proxy `p:1` is not an http or https address");
        assert_eq!(
            address(&Secret::new("p:1")).unwrap().as_str(),
            "http://p:1/"
        );
    }
}
