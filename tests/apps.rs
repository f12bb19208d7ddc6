//! Real projects, on bases pulled from a registry on this machine.

use std::path::Path;

use serde_json::json;

use crate::support::docker::Docker;
use crate::support::registry::Registry;
use crate::support::{Place, base};

/// A project whose base comes from a registry; what the machine's package managers need is passed on.
fn app(name: &str, base: &str, layout: &Path) -> (Place, Registry) {
    let registry = Registry::start();
    registry.fill(layout, base);
    let place =
        Place::with_app(name).with_argument(format!("--build-arg=REGISTRY={}", registry.address));
    let arguments = base::host_args().into_iter();
    let place = arguments.fold(place, |place, (name, value)| {
        place.with_argument(format!("--build-arg={name}={value}"))
    });
    (place, registry)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_debian_package_is_installed_and_used() {
    let (place, _registry) = app("apt", "debian", base::debian());
    let image = place.image(&[]);
    let files = image.files();
    assert_eq!(files["srv/names"].content, b"Grace\nEdsger\n");
    assert!(files.contains_key("usr/bin/jq"));
    assert!(
        files["var/lib/dpkg/status"]
            .content
            .windows(12)
            .any(|text| text == b"Package: jq\n")
    );
    assert!(
        !files
            .keys()
            .any(|path| path.starts_with("var/lib/apt/lists/"))
    );
    assert_eq!(image.config["config"]["WorkingDir"], "/srv");
}

#[test]
fn a_c_program_is_compiled_in_one_stage_and_alone_in_the_next() {
    let (place, _registry) = app("c", "toolchain", base::toolchain());
    place.build(&[]).success().says(" 3 words\n");
    let image = place.image(&["--tag", "count"]);
    assert_eq!(image.layers.len(), 1);
    let files = image.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["bin", "bin/count"]);
    assert_eq!(&files["bin/count"].content[..4], b"\x7fELF");
    assert_eq!(files["bin/count"].mode & 0o7777, 0o755);
    let (docker, archive) = (Docker::start(), place.docker_archive(&["--tag", "count"]));
    docker.load(&archive);
    assert_eq!(docker.output(&["count"]), "0 words\n");
}

#[test]
fn a_python_application_gets_its_requirements() {
    let (place, _registry) = app("python", "toolchain", base::toolchain());
    let tree = place.tree(&[]);
    let signed = read(&tree.join("signed"));
    assert!(
        signed.starts_with("hello.") && signed.len() > 30,
        "{signed}"
    );
    let outcome = place.build(&["--target=app", "--tag=signer"]).success();
    assert_eq!(outcome.ran(), [""; 0]);
    let config = place.run(["inspect", "signer"]).success().stdout;
    assert!(
        config.contains("\"nobody\"") && config.contains("sign.py"),
        "{config}"
    );
    place.file(
        "sign.py",
        read(&place.context().join("sign.py")).replace("not a secret", "other"),
    );
    let again = place.tree(&[]);
    assert_ne!(read(&again.join("signed")), signed);
}

#[test]
fn a_node_application_gets_its_locked_dependencies() {
    let (place, _registry) = app("node", "toolchain", base::toolchain());
    let tree = place.tree(&[]);
    assert_eq!(read(&tree.join("answer")), "172800000\n");
    let package: serde_json::Value =
        serde_json::from_str(&read(&tree.join("package.json"))).unwrap();
    assert_eq!(
        (&package["name"], &package["version"]),
        (&json!("ms"), &json!("2.1.3"))
    );
    place.file("index.js", "console.log(require('ms')('1h'));\n");
    let outcome = place.build(&["--target=checked"]).success();
    assert_eq!(
        outcome.ran(),
        ["COPY . .", "RUN node index.js \"2 days\" > /answer"]
    );
}

#[test]
fn a_service_has_its_user_volume_health_check_and_entry_point() {
    let place = Place::with_app("service");
    let archive = place.docker_archive(&["--tag", "web"]);
    let docker = Docker::start();
    docker.load(&archive);
    assert_eq!(
        docker.output(&["web"]),
        "user web, port 8080\n<h1>It works</h1>\n"
    );
    let inspected = docker.run(["inspect", "web"]).success().stdout;
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["User"], "web");
    assert_eq!(config["Volumes"], json!({"/var/lib/web": {}}));
    assert_eq!(config["ExposedPorts"], json!({"8080/tcp": {}}));
    assert_eq!(config["Entrypoint"], json!(["entrypoint.sh"]));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Healthcheck"]["Interval"], 10_000_000_000_u64);
    assert_eq!(config["Healthcheck"]["Retries"], 5);
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], "1.2");
}
