//! Dockerfiles as people write them, built by root and by an ordinary user: the same layers.

use serde_json::Value;

use crate::support::{EPOCH, Place, base, testdata};

/// Builds a project with all times clamped into a store; gives the image's config, which has the digests of all layers.
fn config(project: &str, flags: &[&str], store: &Place, place: Place) -> Value {
    let place = place.with_root(&store.root());
    let host = base::host_args().into_iter();
    let place = host.fold(place, |place, (name, value)| {
        place.with_argument(format!("--build-arg={name}={value}"))
    });
    place.copies(&testdata(project));
    let name = project.replace('/', "-");
    let epoch = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
    let output = format!("--output=type=image,name={name},rewrite-timestamp=true");
    place
        .build(&[flags, &[epoch.as_str(), &output]].concat())
        .success();
    let inspected = place.run(["inspect", &name]).success().stdout;
    serde_json::from_str::<Value>(&inspected).unwrap()[0]["Config"].take()
}

/// Builds projects in one store as root, in another as an ordinary user, and compares the images.
fn same_at_both_rungs(projects: &[(&str, &[&str])]) {
    let (of_root, of_user) = (Place::new(), Place::new().unprivileged());
    for (project, flags) in projects {
        let build = |isolation, store, place| {
            let flags = [*flags, &[isolation]].concat();
            config(project, &flags, store, place)
        };
        let (root, user) = std::thread::scope(|scope| {
            let user = || build("--isolation=userns", &of_user, Place::new().unprivileged());
            let user = scope.spawn(user);
            let root = build("--isolation=root", &of_root, Place::new());
            (root, user.join().unwrap())
        });
        let layers = root["rootfs"]["diff_ids"].as_array().unwrap();
        assert!(layers.len() > 1, "{project}");
        assert_eq!(root, user, "{project}");
    }
}

fn with_base(name: &str, layout: &std::path::Path) -> String {
    format!("--build-context={name}=oci-layout://{}", layout.display())
}

#[test]
fn on_debian() {
    let projects = [
        "rungs/user",
        "rungs/setuid",
        "rungs/tar",
        "rungs/replace",
        "rungs/hardlinks",
        "rungs/daemon",
        "rungs/setcap",
        "rungs/sudo",
    ];
    let base = with_base("debian", base::debian());
    let flags = [base.as_str()];
    same_at_both_rungs(&projects.map(|project| (project, &flags[..])));
}

#[test]
fn on_a_tool_chain() {
    let base = with_base("toolchain", base::toolchain());
    let base = base.as_str();
    same_at_both_rungs(&[
        ("rungs/make", &[base]),
        ("apps/python", &[base, "--target=app"]),
        ("apps/node", &[base, "--target=app"]),
    ]);
}

#[test]
fn on_a_small_base_and_on_none() {
    same_at_both_rungs(&[("rungs/busybox", &[]), ("rungs/scratch", &[])]);
}

#[test]
fn the_readme_lists_every_project() {
    let readme = std::fs::read_to_string(testdata("../README.md")).unwrap();
    let this = include_str!("rungs.rs");
    for entry in std::fs::read_dir(testdata("rungs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(this.contains(&format!("\"rungs/{name}\"")), "{name}");
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}
