//! What is done while a base is being pulled: the files of the context are hashed; a base that commands stand on is
//! unpacked as it is read.

use std::fmt::Write as _;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::inotify;

use crate::support::process::Running;
use crate::support::proxy::{Fate, Proxy};
use crate::support::registry::Registry;
use crate::support::{Place, base, store, wait_until};

/// How long a build may take to come to the files.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts how often a file is read.
struct Readings(OwnedFd);

impl Readings {
    fn of(file: &Path) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).unwrap();
        // With the opening too: equal events that follow each other are told as one.
        let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&watch, file, events).unwrap();
        Self(watch)
    }

    /// How often since it was last asked.
    fn count(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        while let Ok(event) = events.next() {
            count += usize::from(event.events().contains(inotify::ReadFlags::CLOSE_NOWRITE));
        }
        count
    }

    /// Waits until somebody has read it.
    fn wait(&self) -> bool {
        wait_until(PATIENCE, || self.count() > 0)
    }
}

/// A registry with the small base, of which the layer is given out when `may_go` comes back.
fn held_back(registry: &Registry, may_go: impl Fn() + Send + Sync + 'static) -> Proxy {
    registry.fill(&base::busybox(), "busybox");
    let layout = base::busybox();
    let manifest = layout
        .join("blobs")
        .join(crate::support::faulty::root(&layout).replace(':', "/"));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    Proxy::with_fate(&registry.address, move |line| {
        if line.starts_with("GET") && line.ends_with(&layer) {
            may_go();
        }
        Fate::Passed
    })
}

#[test]
fn files_are_hashed_while_the_base_is_pulled_and_edits_until_it_is_here_are_seen() {
    let place = Place::new();
    let names = ["kept", "edited", "fresh"];
    place.file("kept", "kept").file("edited", "old");
    // Old enough that digests are remembered.
    std::thread::sleep(Duration::from_millis(2_200));
    let path = |name: &str| place.context().join(name);
    // Its digest never is: it is always newer than two seconds ago.
    place.file("fresh", "fresh");
    let later = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let fresh = fs::File::options().write(true).open(path("fresh"));
    fresh.unwrap().set_modified(later).unwrap();
    let readings = names.map(|name| Readings::of(&path(name)));
    let ahead = ["kept", "edited"].map(|name| Readings::of(&path(name)));
    let edited = path("edited");
    let (sender, were_hashed) = std::sync::mpsc::channel();
    let registry = Registry::start();
    let proxy = held_back(&registry, move || {
        sender.send(ahead.iter().all(Readings::wait)).unwrap();
        fs::write(&edited, "new").unwrap();
    });
    let text = format!(
        "FROM {}\nWORKDIR /w\nCOPY {} ./\n",
        proxy.name("busybox"),
        names.join(" ")
    );
    place.file("Dockerfile", text);
    let image = place.image(&[]);
    assert!(were_hashed.recv().unwrap(), "nobody read them meanwhile");
    let texts = names.map(|name| image.text(&format!("w/{name}")));
    assert_eq!(texts, ["kept", "new", "fresh"]);
    // Each once for its digest and once to be copied, the edited one for its digest twice; the fresh one, of which a digest
    // would not be remembered, not ahead.
    assert_eq!(readings.map(|file| file.count()), [2, 3, 2]);
}

#[test]
fn a_base_is_unpacked_as_it_is_read_only_if_commands_stand_on_it() {
    let registry = Registry::start();
    registry.fill(&base::busybox(), "busybox");
    let from = format!(
        "FROM {}\nWORKDIR /w\nCOPY missing /\n",
        registry.name("busybox")
    );
    for (command, is_unpacked) in [("", false), ("RUN true\n", true)] {
        let place = Place::with_dockerfile(&format!("{from}{command}"));
        place.build(&[]).failure(1).says("missing");
        let mut files = Vec::new();
        store::files_below(&place.root().join("trees"), &mut files);
        let has_base = files.iter().any(|file| file.ends_with("bin/busybox"));
        assert_eq!(has_base, is_unpacked, "{command}: {files:?}");
    }
}

#[test]
fn any_number_of_copies_may_wait_for_one_layer() {
    // More than there are threads to wait in, if each that waited took one.
    const COPIES: usize = 700;
    let registry = Registry::start();
    // Until all wait for it that ever will at once.
    let proxy = held_back(&registry, || std::thread::sleep(Duration::from_secs(3)));
    let from = proxy.name("busybox");
    let mut stages = String::new();
    let mut last = "FROM scratch\n".to_owned();
    for number in 0..COPIES {
        writeln!(stages, "FROM {from} AS s{number}\nCOPY f /f{number}").unwrap();
        writeln!(last, "COPY --from=s{number} /f{number} /").unwrap();
    }
    let place = Place::with_dockerfile(&(stages + &last));
    place.file("f", "f");
    let mut command = place.build_command();
    let running = Running::start(command.arg(place.context()));
    running.end(Duration::from_secs(120)).success();
}
