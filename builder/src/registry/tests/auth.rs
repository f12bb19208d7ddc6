//! Challenges, tokens, and who sees a credential.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::registry::config::{RegistryConfig, Secret};
use crate::registry::push::Mount;
use crate::registry::resolve::resolve_image;
use crate::registry::testing::faulty::{Answer, Faulty, Seen};
use crate::registry::testing::memory::Memory;
use crate::registry::testing::sample::Sample;
use crate::registry::testing::{chain, client, logged_in, reference, with_conf};
use cache::digest::Digest;
use frontend::platform::Platform;

/// A registry that takes `Bearer TOKEN` and names a realm.
fn guarded(realm: &str, token: &'static str) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    let image = Sample::image("amd64", &[b"x"]);
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg, istry\"");
    move |seen: &Seen| match seen.header("authorization") {
        Some(header) if header == format!("Bearer {token}") => image.answer(seen),
        Some(_) | None => Answer::new(401).header("WWW-Authenticate", &challenge),
    }
}

fn form(seen: &Seen) -> String {
    String::from_utf8(seen.body.clone()).unwrap()
}

async fn resolve(registry: &Faulty, config: RegistryConfig) -> Result<(), String> {
    let name = reference(&registry.address, "org/a");
    let blobs = Memory::default();
    let resolved = resolve_image(&client(config), &blobs, &name, &Platform::linux("amd64")).await;
    resolved.map(|_| ()).map_err(|error| chain(&error))
}

#[tokio::test]
async fn anonymous_token_is_fetched_once() {
    let service =
        Faulty::start(|_| Answer::new(200).body(r#"{"token":"t","expires_in":300}"#)).await;
    let realm = format!("http://{}/token?fixed=1", service.address);
    let registry = Faulty::start(guarded(&realm, "t")).await;
    resolve(&registry, RegistryConfig::default()).await.unwrap();
    assert_eq!(
        service.lines(),
        ["GET /token?fixed=1&service=reg%2C+istry&scope=repository%3Aorg%2Fa%3Apull"]
    );
    assert_eq!(registry.seen().len(), 4, "401, HEAD, manifest, config");
}

#[tokio::test]
async fn password_goes_by_post_and_by_get_where_there_is_no_post() {
    for status in [200, 404, 405, 401] {
        let service = Faulty::start(move |seen| match (seen.method.as_str(), status) {
            ("POST", 200) => Answer::new(200).body(r#"{"access_token":"t"}"#),
            ("POST", status) => Answer::new(status),
            _ => Answer::new(200).body(r#"{"token":"t"}"#),
        })
        .await;
        let realm = format!("http://{}/token", service.address);
        let registry = Faulty::start(guarded(&realm, "t")).await;
        let config = logged_in(&registry.address, "user", "pass&word");
        resolve(&registry, config).await.unwrap();
        let seen = service.seen();
        assert_eq!(
            form(&seen[0]),
            "grant_type=password&username=user&password=pass%26word&client_id=build\
             &service=reg%2C+istry&scope=repository%3Aorg%2Fa%3Apull"
        );
        assert_eq!(seen[0].header("authorization"), None);
        match status {
            200 => assert_eq!(seen.len(), 1),
            _ => assert_eq!(
                seen[1].header("authorization"),
                Some("Basic dXNlcjpwYXNzJndvcmQ=")
            ),
        }
        let shown = registry.seen();
        assert!(
            shown
                .iter()
                .all(|seen| seen.header("authorization") != Some("Basic dXNlcjpwYXNzJndvcmQ="))
        );
    }
}

#[tokio::test]
async fn identity_and_registry_tokens() {
    let service = Faulty::start(|_| Answer::new(200).body(r#"{"access_token":"t"}"#)).await;
    let realm = format!("http://{}/token", service.address);
    let registry = Faulty::start(guarded(&realm, "t")).await;
    let config = |key: &str, value: &str| {
        let auths = json!({"auths": {&registry.address: {key: value}}}).to_string();
        let mut config = RegistryConfig::default();
        config.credentials.inline = Some(Secret::new(auths));
        config
    };
    resolve(&registry, config("registrytoken", "t"))
        .await
        .unwrap();
    assert!(service.seen().is_empty());
    resolve(&registry, config("identitytoken", "refresh"))
        .await
        .unwrap();
    let sent = form(&service.seen()[0]);
    assert!(
        sent.starts_with("grant_type=refresh_token&refresh_token=refresh&"),
        "{sent}"
    );
}

#[tokio::test]
async fn stale_tokens_are_replaced_once() {
    let (issued, calls) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let counter = Arc::clone(&issued);
    let service = Faulty::start(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        Answer::new(200).body(json!({"token": format!("t{number}")}).to_string())
    })
    .await;
    let challenge = format!("Bearer realm=\"http://{}/token\"", service.address);
    let image = Sample::image("amd64", &[b"x"]);
    // The first token works for one request only.
    let registry = Faulty::start(move |seen| match seen.header("authorization") {
        Some("Bearer t0") if calls.fetch_add(1, Ordering::SeqCst) == 0 => image.answer(seen),
        Some("Bearer t1") => image.answer(seen),
        Some(_) | None => Answer::new(401).header("WWW-Authenticate", &challenge),
    })
    .await;
    resolve(&registry, RegistryConfig::default()).await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_token_is_a_denial() {
    let service = Faulty::start(|_| Answer::new(200).body(r#"{"token":"bad"}"#)).await;
    let registry = Faulty::start(guarded(&format!("http://{}/", service.address), "good")).await;
    let error = resolve(&registry, RegistryConfig::default())
        .await
        .unwrap_err();
    assert!(
        error.ends_with("repository does not exist or may require authorization"),
        "{error}"
    );
    assert!(registry.seen().len() <= 4, "{:?}", registry.lines());
}

#[tokio::test]
async fn flaky_token_services_are_asked_again() {
    let tries = AtomicUsize::new(0);
    let service = Faulty::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(503),
        1 => Answer::reset(),
        _ => Answer::new(200).body(r#"{"token":"t"}"#),
    })
    .await;
    let registry = Faulty::start(guarded(&format!("http://{}/", service.address), "t")).await;
    resolve(&registry, RegistryConfig::default()).await.unwrap();
    assert_eq!(service.seen().len(), 3);
}

#[tokio::test]
async fn basic_challenge() {
    let image = Sample::image("amd64", &[b"x"]);
    let registry = Faulty::start(move |seen| match seen.header("authorization") {
        Some("Basic dTpw") => image.answer(seen),
        Some(_) | None => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    resolve(&registry, logged_in(&registry.address, "u", "p"))
        .await
        .unwrap();
    assert_eq!(registry.seen().len(), 4, "asked once");
    let error = resolve(&registry, logged_in(&registry.address, "u", "wrong"))
        .await
        .unwrap_err();
    assert!(error.contains("pull access denied"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    let error = resolve(&registry, logged_in("other.example", "u", "p"))
        .await
        .unwrap_err();
    assert!(error.contains("pull access denied"), "{error}");
}

#[tokio::test]
async fn realms_without_tls_get_nothing() {
    let cases = [
        ("http://token.example/t", "which is reached without TLS"),
        ("http://10.0.0.1:99/t", "which is reached without TLS"),
        ("ftp://127.0.0.1/t", "which is neither http nor https"),
        ("nonsense", "which is no address"),
    ];
    for (realm, message) in cases {
        let registry = Faulty::start(guarded(realm, "t")).await;
        let error = resolve(&registry, logged_in(&registry.address, "u", "s3cret"))
            .await
            .unwrap_err();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
        assert_eq!(registry.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_realm_that_redirects_secrets_away_gets_no_further() {
    let thief = Faulty::start(|_| Answer::new(200).body(r#"{"token":"t"}"#)).await;
    let location = format!("http://{}/steal", thief.address);
    let service = Faulty::start(move |_| Answer::new(307).header("Location", &location)).await;
    let registry = Faulty::start(guarded(&format!("http://{}/", service.address), "t")).await;
    let error = resolve(&registry, logged_in(&registry.address, "u", "p"))
        .await
        .unwrap_err();
    assert!(error.contains("does not go to another host"), "{error}");
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_mirror_does_not_see_the_registrys_credential() {
    let image = Sample::image("amd64", &[b"x"]);
    let mirror =
        Faulty::start(|_| Answer::new(401).header("WWW-Authenticate", "Basic realm=\"m\"")).await;
    let upstream = Faulty::start(move |seen| match seen.header("authorization") {
        Some("Basic dTpw") => image.answer(seen),
        Some(_) | None => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let (mut config, _dir) = with_conf(&format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        upstream.address, mirror.address
    ));
    config.credentials = logged_in(&upstream.address, "u", "p").credentials;
    resolve(&upstream, config).await.unwrap();
    assert!(
        mirror
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let service = Faulty::start(|_| Answer::new(200).body(r#"{"token":"t"}"#)).await;
    let challenge = format!(
        "Bearer realm=\"http://{}/\",scope=\"repository:x:pull\"",
        service.address
    );
    let registry = Faulty::start(move |seen| match seen.header("authorization") {
        Some(_) => Answer::new(201),
        None => Answer::new(401).header("WWW-Authenticate", &challenge),
    })
    .await;
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "org/a");
    let mounted = client
        .mount(&name, &Digest::of(b"x"), "org/base")
        .await
        .unwrap();
    assert!(matches!(mounted, Mount::Mounted));
    assert_eq!(
        service.lines(),
        [
            "GET /?scope=repository%3Aorg%2Fa%3Apull%2Cpush&scope=repository%3Aorg%2Fbase%3Apull\
          &scope=repository%3Ax%3Apull"
        ]
    );
}
