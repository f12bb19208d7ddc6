//! Dockerfiles as people write them, built by root and by an ordinary user: the same layers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::image::Image;
use crate::support::{EPOCH, Outcome, Place, base, testdata};

/// What package managers say when a registry cannot be reached for the moment.
const UNREACHABLE: [&str; 8] = [
    "Failed to fetch",
    "Temporary failure resolving",
    "Unable to locate package",
    "has no installation candidate",
    "Could not find a version",
    "Connection reset",
    "ECONNRESET",
    "ETIMEDOUT",
];

/// A store of root's or of an ordinary user's, with which projects are built.
struct Rung {
    isolation: &'static str,
    store: Place,
}

impl Rung {
    fn place(&self, project: &str) -> Place {
        let place = match self.isolation {
            "userns" => Place::new().unprivileged(),
            _ => Place::new(),
        };
        let place = place
            .with_root(&self.store.root())
            .with_argument(format!("--isolation={}", self.isolation))
            .with_argument(format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}"));
        let host = base::host_args().into_iter();
        let place = host.fold(place, |place, (name, value)| {
            place.with_argument(format!("--build-arg={name}={value}"))
        });
        place.copies(&testdata(project));
        place
    }

    /// Builds a project with all times clamped; gives the image's config, which has the digests of all layers.
    fn config(&self, project: &str, flags: &[&str]) -> Value {
        let place = self.place(project);
        let name = project.replace('/', "-");
        let output = format!("--output=type=image,name={name},rewrite-timestamp=true");
        build_online(&place, &[flags, &[&output]].concat());
        let inspected = place.run(["inspect", &name]).success().stdout;
        serde_json::from_str::<Value>(&inspected).unwrap()[0]["Config"].take()
    }

    /// The image of a project that was built.
    fn image(&self, project: &str, flags: &[&str]) -> Image {
        self.place(project).clamped_image(flags)
    }
}

/// Builds; asks again if a registry could not be reached, which is not what is tested here.
fn build_online(place: &Place, args: &[&str]) {
    let is_unreachable = |outcome: &Outcome| {
        let says = |text: &&str| outcome.stderr.contains(text);
        outcome.code != Some(0) && UNREACHABLE.iter().any(says)
    };
    let mut outcome = place.build(args);
    for _ in 0..2 {
        if is_unreachable(&outcome) {
            outcome = place.build(args);
        }
    }
    outcome.success();
}

/// The first files that two images do not have alike.
fn differing(root: &Image, user: &Image) -> Vec<String> {
    let (root, user) = (root.files(), user.files());
    let paths: BTreeSet<&String> = root.keys().chain(user.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| root.get(*path) != user.get(*path));
    differ.take(20).cloned().collect()
}

/// Builds projects in one store as root, in another as an ordinary user, and compares the images.
fn same_at_both_rungs(projects: &[(&str, &[&str])]) {
    let of_root = Rung {
        isolation: "root",
        store: Place::new(),
    };
    let of_user = Rung {
        isolation: "userns",
        store: Place::new().unprivileged(),
    };
    for (project, flags) in projects {
        let (root, user) = std::thread::scope(|scope| {
            let user = scope.spawn(|| of_user.config(project, flags));
            let root = of_root.config(project, flags);
            (root, user.join().unwrap())
        });
        let layers = root["rootfs"]["diff_ids"].as_array().unwrap();
        assert!(layers.len() > 1, "{project}");
        if root != user {
            let images = [&of_root, &of_user].map(|rung| rung.image(project, flags));
            let files = differing(&images[0], &images[1]);
            panic!("{project}: these differ: {files:?}\n{root}\n{user}");
        }
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
