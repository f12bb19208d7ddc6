//! No thread is detached, however a build ends: glibc reads what a thread that ends at that moment has given back already
//! (glibc bug 19951, `pthread_detach`). It ends the program with SIGSEGV, in one of many thousand builds; so every such call
//! counts here.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::Running;
use crate::support::registry::Registry;
use crate::support::{Outcome, Place, base, finish, program};

/// Layers that several threads compress, another hashes, and more read and push.
const STEPS: &str = "FROM busybox\nCOPY many /many\nRUN yes | head -c 6000000 > /made\nRUN head -c 6000000 /dev/urandom > /noise\n";

struct Watched {
    place: Place,
    watch: PathBuf,
}

impl Watched {
    fn new(dockerfile: &str) -> Self {
        let place = Place::with_dockerfile(dockerfile);
        for number in 0..400_u32 {
            place.file(&format!("many/{number}"), number.to_le_bytes().repeat(2000));
        }
        let watch = place.path("watch.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/detached.c");
        let mut gcc = Command::new(program("gcc", "gcc libc6-dev"));
        gcc.args(["-shared", "-fPIC", "-o"]).arg(&watch).arg(source);
        finish(&mut gcc).success();
        Self { place, watch }
    }

    /// A build that is watched.
    fn over(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.watch);
        command.arg(self.place.context());
        command
    }

    #[track_caller]
    fn build(&self, args: &[&str]) -> Outcome {
        let mut command = self.place.build_command();
        command.args(args);
        finish(&mut self.over(command)).detached_nothing()
    }
}

impl Outcome {
    /// The program was watched, and detached nothing.
    #[track_caller]
    fn detached_nothing(self) -> Self {
        self.says("threads are watched")
            .does_not_say("a thread was detached")
    }
}

#[test]
fn builds_that_pass_detach_no_thread() {
    let registry = Registry::start();
    registry.fill(&base::busybox(), "base/busybox");
    let from = registry.name("base/busybox");
    let watched = Watched::new(&STEPS.replace("busybox", &from));
    let name = registry.name("app:1");
    let push = ["--push", "--tag", &name, "--jobs=4"];
    watched.build(&push).success();
    watched.build(&push).success();
    watched.place.file("many/7", "edited\n");
    watched.build(&push).success();
    let layout = watched.place.path("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    watched.build(&["--output", &output]).success();
    watched.build(&["--no-cache"]).success();
}

#[test]
fn builds_that_fail_detach_no_thread() {
    let watched = Watched::new(&format!("{STEPS}RUN false\n"));
    watched.build(&[]).failure(1);
    watched.build(&["--target=nosuch"]).failure(1);
    // Nobody takes the image.
    let watched = Watched::new(STEPS);
    let name = "127.0.0.1:1/app";
    watched.build(&["--push", "--tag", name]).failure(3);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = watched.place.build_command();
    command.args(["--output", "type=oci,dest=-"]).stdout(full);
    finish(&mut watched.over(command))
        .failure(3)
        .detached_nothing();
}

#[test]
fn builds_that_are_interrupted_detach_no_thread() {
    let watched = Watched::new(&format!("{STEPS}RUN echo up-$((10)); sleep 100\n"));
    let build = Running::start(&mut watched.over(watched.place.build_command()));
    build.wait_for("up-10").signal(Signal::INT);
    build
        .end(Duration::from_secs(10))
        .failure(130)
        .detached_nothing();
}
