//! Which redirects and origins are trusted.

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[test]
fn a_registry_behind_a_proxy_keeps_tls() {
    let cases = [
        ("https://h/a", "http://h/b", "https://h/b"),
        ("https://h:444/a", "http://h/b", "https://h:444/b"),
        ("https://h/a", "http://h:81/b", "http://h:81/b"),
        ("https://h/a", "http://other/b", "http://other/b"),
        ("http://h/a", "http://h/b", "http://h/b"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(
            keep_tls(&url(from), url(to)).as_str(),
            expected,
            "{from} {to}"
        );
    }
}

#[test]
fn redirects_that_are_followed() {
    let (config, _dir) = super::super::testing::with_conf(
        "[[registry]]\nlocation = \"insecure.example\"\ninsecure = true\n",
    );
    let transport = Transport::new(&config, Timeouts::default()).unwrap();
    let origin = Origin {
        host: "h".into(),
        scheme: Scheme::Https(Verification::Full),
    };
    let cases = [
        ("https://h/a", "https://other/b", Redirects::Anywhere, true),
        ("https://h/a", "http://other/b", Redirects::Anywhere, false),
        (
            "https://h/a",
            "http://127.0.0.1/b",
            Redirects::Anywhere,
            false,
        ),
        (
            "https://h/a",
            "http://insecure.example/b",
            Redirects::Anywhere,
            true,
        ),
        ("https://h/a", "http://h/b", Redirects::Nowhere, false),
        ("https://h/a", "https://h/b", Redirects::Nowhere, true),
        ("http://h/a", "http://other/b", Redirects::Anywhere, true),
        ("http://h/a", "ftp://other/b", Redirects::Anywhere, false),
    ];
    for (from, to, redirects, is_followed) in cases {
        let request = Outgoing {
            origin: &origin,
            method: Method::GET,
            url: url(from),
            headers: HeaderMap::new(),
            authorization: None,
            payload: Payload::Empty,
            redirects,
        };
        let answer = transport.allowed(&request, &url(from), url(to));
        assert_eq!(answer.is_ok(), is_followed, "{from} {to}");
    }
}

#[test]
fn addresses_are_shown_without_secrets() {
    let address = url("https://user:password@h:1/a/b?signature=s#f");
    assert_eq!(shown(&address), "https://h:1/a/b");
}
