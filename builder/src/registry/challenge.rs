//! What a registry demands: the `WWW-Authenticate` headers that registries send (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: String,
    },
}

impl Challenge {
    /// The challenge that we answer: Bearer before Basic.
    pub(crate) fn choose(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let mut challenges: Vec<Self> = texts.flat_map(Self::parse).collect();
        let bearer = |challenge: &Self| matches!(challenge, Self::Bearer { .. });
        match challenges.iter().position(bearer) {
            Some(at) => Some(challenges.swap_remove(at)),
            None => challenges.pop(),
        }
    }

    /// The challenges of one header that we know.
    fn parse(text: &str) -> Vec<Self> {
        let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
        for part in split_outside_quotes(text) {
            let (first, rest) = part.split_once(' ').unwrap_or((part, ""));
            let (scheme, parameter) = match first.contains('=') {
                true => (None, part),
                false => (Some(first), rest.trim()),
            };
            if let Some(scheme) = scheme {
                found.push((scheme.to_ascii_lowercase(), BTreeMap::new()));
            }
            if let (Some((_, parameters)), Some((key, value))) =
                (found.last_mut(), parameter.split_once('='))
            {
                parameters.insert(key.trim().to_ascii_lowercase(), unquoted(value.trim()));
            }
        }
        let known =
            found
                .into_iter()
                .filter_map(|(scheme, mut parameters)| match scheme.as_str() {
                    "basic" => Some(Self::Basic),
                    "bearer" => Some(Self::Bearer {
                        realm: parameters.remove("realm")?,
                        service: parameters.remove("service"),
                        scope: parameters.remove("scope").unwrap_or_default(),
                    }),
                    _ => None,
                });
        known.collect()
    }
}

fn split_outside_quotes(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn unquoted(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.extend(chars.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
            scope: scope.into(),
        }
    }

    #[test]
    fn headers() {
        let two = "repository:a:pull,push repository:b:pull";
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (
                &[r#"Bearer realm="https://t/x",service="s""#],
                Some(bearer("https://t/x", Some("s"), "")),
            ),
            (
                &[r#"Bearer realm="r",scope="repository:a:pull,push repository:b:pull""#],
                Some(bearer("r", None, two)),
            ),
            (
                &[r#"bearer REALM=r , service="a\"b""#],
                Some(bearer("r", Some("a\"b"), "")),
            ),
            (&["Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (
                &["Basic realm=\"x\", Bearer realm=\"r\""],
                Some(bearer("r", None, "")),
            ),
            (
                &["Basic realm=\"x\"", "Bearer realm=\"r\""],
                Some(bearer("r", None, "")),
            ),
            (&["Negotiate", "Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["Bearer service=\"s\""], None),
            (&["Digest realm=\"x\""], None),
            (&["", ",,=,\"", "Bearer \"\\"], None),
            (&[], None),
        ];
        for (texts, expected) in cases {
            let mut headers = HeaderMap::new();
            for text in *texts {
                headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
            }
            assert_eq!(Challenge::choose(&headers), *expected, "{texts:?}");
        }
    }
}
