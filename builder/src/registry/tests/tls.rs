//! TLS, with the reference registry behind certificates of our own.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::registry::config::{RegistryConfig, TlsRoots};
use crate::registry::testing::certificates::Certificates;
use crate::registry::testing::daemon::Daemon;
use crate::registry::testing::{chain, client, logged_in, reference, with_conf};

use super::reference::round_trip;

#[tokio::test(flavor = "multi_thread")]
async fn authorities_and_client_certificates() {
    let certificates = Certificates::make();
    let dir = tempfile::tempdir().unwrap();
    let registry = Daemon::start(&certificates.yaml(true), "").await;
    let name = reference(&registry.address, "a:v1");

    let known = RegistryConfig {
        certs_dirs: vec![certificates.certs_dir(dir.path(), &registry.address, true)],
        ..RegistryConfig::default()
    };
    round_trip(&client(known), &name).await.unwrap();

    let nobody = tempfile::tempdir().unwrap();
    let anonymous = RegistryConfig {
        certs_dirs: vec![certificates.certs_dir(nobody.path(), &registry.address, false)],
        ..RegistryConfig::default()
    };
    let error = round_trip(&client(anonymous), &name).await.unwrap_err();
    assert!(
        chain(&error).starts_with("failed to do request: Head \"https://"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_is_configured() {
    let certificates = Certificates::make();
    let registry = Daemon::start(&certificates.yaml(false), "").await;
    let name = reference(&registry.address, "a:v1");

    // Insecure: the certificate does not matter.
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address
    );
    let (insecure, _dir) = with_conf(&conf);
    round_trip(&client(insecure), &name).await.unwrap();

    // A certs.d folder without the right authority: TLS, and refused.
    let dir = tempfile::tempdir().unwrap();
    let other = Certificates::make();
    let certs_dirs = vec![other.certs_dir(dir.path(), &registry.address, false)];
    let untrusted = RegistryConfig {
        certs_dirs: certs_dirs.clone(),
        ..RegistryConfig::default()
    };
    let error = round_trip(&client(untrusted), &name).await.unwrap_err();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));

    // SSL_CERT_FILE with the right one.
    let trusted = RegistryConfig {
        certs_dirs,
        roots: TlsRoots {
            file: Some(certificates.path("ca.crt")),
            dirs: Vec::new(),
        },
        ..RegistryConfig::default()
    };
    round_trip(&client(trusted), &name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_tls_cannot_name_a_realm_without() {
    let certificates = Certificates::make();
    let bundle = certificates.path("ca.crt");
    let auth = format!(
        "auth:\n  token:\n    realm: http://token.example/t\n    service: s\n    issuer: i\n    rootcertbundle: {}\n",
        bundle.display()
    );
    let registry = Daemon::start(&certificates.yaml(false), &auth).await;
    let dir = tempfile::tempdir().unwrap();
    let config = RegistryConfig {
        certs_dirs: vec![certificates.certs_dir(dir.path(), &registry.address, false)],
        ..logged_in(&registry.address, "u", "s3cret")
    };
    let name = reference(&registry.address, "a:v1");
    let error = chain(&round_trip(&client(config), &name).await.unwrap_err());
    assert!(
        error.contains("http://token.example/t, which is reached without TLS"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_tls_alert_is_taken_for_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let first_bytes = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            seen.push(buffer[0]);
            // Fatal: protocol version.
            stream
                .write_all(b"\x15\x03\x01\x00\x02\x02\x46")
                .await
                .unwrap();
        }
        seen
    });
    let conf = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
    let (config, _dir) = with_conf(&conf);
    let name = reference(&address, "a:v1");
    let error = round_trip(&client(config), &name).await.unwrap_err();
    assert!(chain(&error).contains("https://"), "{}", chain(&error));
    let handshake = 0x16;
    assert_eq!(first_bytes.await.unwrap(), [b'H', handshake]);
}
