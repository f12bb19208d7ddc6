//! Every step that runs again says why: one known cause each.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{Outcome, Place, testdata};

/// The Dockerfile that the causes are tried on.
const BEFORE: &str = "FROM busybox AS made
COPY lib /lib-made
FROM busybox
ARG VERSION=1.2
ARG API_TOKEN=one
ENV MODE=a LEVEL=1
WORKDIR /srv
COPY package.json ./
RUN echo install $VERSION > /installed
COPY --chmod=644 src src
ADD list.txt /list
COPY <<EOT /note
first
EOT
RUN --mount=type=bind,source=tools,target=/tools cat /tools/t > /t
RUN --mount=type=secret,id=s,mode=0400 --mount=type=cache,target=/c --mount=type=tmpfs,target=/m echo $API_TOKEN
COPY --from=made /lib-made /from-made
COPY --from=other o /o
USER 1
RUN id
";

fn place() -> Place {
    let place = Place::with_dockerfile(BEFORE);
    place
        .file("package.json", "{}\n")
        .file("list.txt", "x\n")
        .file("tools/t", "t\n")
        .file("lib/l", "l\n")
        .file("lib/m", "l\n")
        .file("lib/deep/n", "n\n");
    symlink("l", place.context().join("lib/s")).unwrap();
    for name in ["a.rs", "b.rs", "c.rs", "d.rs"] {
        place.file(&format!("src/{name}"), name);
    }
    std::fs::create_dir(place.path("other")).unwrap();
    std::fs::write(place.path("other/o"), "o").unwrap();
    let other = format!("--build-context=other={}", place.path("other").display());
    place.with_argument(other)
}

/// Gives a file or directory of the context another mode.
fn mode(place: &Place, name: &str, mode: u32) {
    let path = place.context().join(name);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn remove(place: &Place, name: &str) {
    std::fs::remove_file(place.context().join(name)).unwrap();
}

fn explained(place: &Place, args: &[&str]) -> Outcome {
    let mut command = place.build_command();
    command.args(["--progress=quiet", "--explain"]);
    crate::support::finish(command.args(args).arg(place.context())).success()
}

/// A cause: what is done to the place, the flags of the second build, and the line that names it.
struct Cause {
    change: fn(&Place),
    flags: &'static [&'static str],
    line: &'static str,
}

fn edit(place: &Place, from: &str, to: &str) {
    let path = place.context().join("Dockerfile");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

const CAUSES: [Cause; 64] = [
    Cause {
        change: |p| {
            p.file("package.json", "{ }\n");
        },
        flags: &[],
        line: "COPY package.json ./: package.json changed\n",
    },
    Cause {
        change: |p| {
            p.file("package.json", "{ }\n");
        },
        flags: &[],
        line: "RUN echo install 1.2 > /installed: package.json changed (COPY package.json ./)\n",
    },
    Cause {
        change: |p| {
            mode(p, "package.json", 0o755);
        },
        flags: &[],
        line: "COPY package.json ./: mode of package.json: 0644 → 0755\n",
    },
    Cause {
        change: |p| {
            remove(p, "package.json");
            symlink("list.txt", p.context().join("package.json")).unwrap();
        },
        flags: &[],
        line: "COPY package.json ./: ",
    },
    Cause {
        change: |p| {
            p.file("src/a.rs", "edited");
        },
        flags: &[],
        line: "COPY --chmod=644 src src: src/a.rs changed\n",
    },
    Cause {
        change: |p| {
            p.file("src/new.rs", "new");
        },
        flags: &[],
        line: "COPY --chmod=644 src src: src/new.rs is new\n",
    },
    Cause {
        change: |p| remove(p, "src/d.rs"),
        flags: &[],
        line: "COPY --chmod=644 src src: src/d.rs is gone\n",
    },
    Cause {
        change: |p| {
            p.file("src/a.rs", "1")
                .file("src/b.rs", "2")
                .file("src/c.rs", "3");
            p.file("src/e.rs", "4");
        },
        flags: &[],
        line: "COPY --chmod=644 src src: 3 files changed, 1 added: src/a.rs, src/b.rs, src/c.rs, …\n",
    },
    Cause {
        change: |p| {
            std::fs::rename(p.context().join("src/a.rs"), p.context().join("src/z.rs")).unwrap();
        },
        flags: &[],
        line: "COPY --chmod=644 src src: 1 file added, 1 removed: src/z.rs, src/a.rs\n",
    },
    Cause {
        change: |p| {
            p.file(".dockerignore", "src/b.rs\n");
        },
        flags: &[],
        line: "COPY --chmod=644 src src: src/b.rs is gone\n",
    },
    Cause {
        change: |p| edit(p, "--chmod=644", "--chmod=600"),
        flags: &[],
        line: "COPY --chmod=600 src src: --chmod: 0644 → 0600\n",
    },
    Cause {
        change: |p| edit(p, "COPY --chmod=644 src src", "COPY --chmod=644 src other"),
        flags: &[],
        line: "COPY --chmod=644 src other: destination: /srv/src → /srv/other\n",
    },
    Cause {
        change: |p| edit(p, "COPY package.json", "COPY --chown=7:8 package.json"),
        flags: &[],
        line: "COPY --chown=7:8 package.json ./: --chown is new: 7; --chown is new: 8\n",
    },
    Cause {
        change: |p| {
            p.file("list.txt", "y\n");
        },
        flags: &[],
        line: "ADD list.txt /list: list.txt changed\n",
    },
    Cause {
        change: |p| edit(p, "first", "second"),
        flags: &[],
        line: "COPY <<EOT /note: EOT changed",
    },
    Cause {
        change: |p| {
            p.file("tools/t", "u\n");
        },
        flags: &[],
        line: "cat /tools/t > /t: mount /tools: tools/t changed\n",
    },
    Cause {
        change: |p| {
            p.file("lib/l", "m\n");
        },
        flags: &[],
        line: "COPY lib /lib-made: lib/l changed\n",
    },
    Cause {
        change: |p| {
            p.file("lib/l", "m\n");
        },
        flags: &[],
        line: "COPY --from=made /lib-made /from-made: lib-made/l changed\n",
    },
    Cause {
        change: |_| {},
        flags: &["--build-arg=VERSION=1.3"],
        line: "RUN echo install 1.3 > /installed: ARG VERSION: 1.2 → 1.3\n",
    },
    Cause {
        change: |p| edit(p, "VERSION=1.2", "VERSION=2"),
        flags: &[],
        line: ": ARG VERSION: 1.2 → 2\n",
    },
    Cause {
        change: |_| {},
        flags: &["--build-arg=API_TOKEN=two"],
        line: ": ARG API_TOKEN changed\n",
    },
    Cause {
        change: |p| edit(p, "MODE=a", "MODE=b"),
        flags: &[],
        line: ": ENV MODE: a → b\n",
    },
    Cause {
        change: |p| edit(p, "ENV MODE=a", "ENV EXTRA=1 MODE=a"),
        flags: &[],
        line: ": ENV EXTRA is new: 1\n",
    },
    Cause {
        change: |p| edit(p, "ENV MODE=a LEVEL=1\n", ""),
        flags: &[],
        line: ": ENV MODE is gone; ENV LEVEL is gone\n",
    },
    Cause {
        change: |p| edit(p, "RUN echo install", "RUN echo Install"),
        flags: &[],
        line: "RUN echo Install 1.2 > /installed: the command changed\n",
    },
    Cause {
        change: |p| edit(p, "USER 1", "USER 2"),
        flags: &[],
        line: "RUN id: USER: 1 → 2\n",
    },
    Cause {
        change: |p| edit(p, "WORKDIR /srv", "WORKDIR /app"),
        flags: &[],
        line: ": WORKDIR: /srv → /app\n",
    },
    Cause {
        change: |_| {},
        flags: &["--add-host=db:10.0.0.1"],
        line: ": --add-host is new: db\n",
    },
    Cause {
        change: |_| {},
        flags: &["--shm-size=64m"],
        line: ": --shm-size is new: 67108864\n",
    },
    Cause {
        change: |_| {},
        flags: &["--no-cache"],
        line: "RUN id: the cache is ignored for it (--no-cache)\n",
    },
    Cause {
        change: |p| mode(p, "lib/deep", 0o700),
        flags: &[],
        line: "COPY lib /lib-made: mode of lib/deep: 0755 → 0700\n",
    },
    Cause {
        change: |p| mode(p, "lib/l", 0o4755),
        flags: &[],
        line: "COPY lib /lib-made: mode of lib/l: 0644 → 4755\n",
    },
    Cause {
        change: |p| {
            remove(p, "lib/s");
            symlink("m", p.context().join("lib/s")).unwrap();
        },
        flags: &[],
        line: "COPY lib /lib-made: lib/s changed\n",
    },
    Cause {
        change: |p| {
            remove(p, "lib/m");
            std::fs::hard_link(p.context().join("lib/l"), p.context().join("lib/m")).unwrap();
        },
        flags: &[],
        line: "COPY lib /lib-made: lib/m is a hard link of l now\n",
    },
    Cause {
        change: |p| {
            remove(p, "lib/l");
            std::fs::create_dir(p.context().join("lib/l")).unwrap();
        },
        flags: &[],
        line: "COPY lib /lib-made: lib/l was a file, is a directory\n",
    },
    Cause {
        change: |p| std::fs::create_dir(p.context().join("lib/empty")).unwrap(),
        flags: &[],
        line: "COPY lib /lib-made: lib/empty is new\n",
    },
    Cause {
        change: |p| edit(p, "COPY lib", "COPY --exclude=m lib"),
        flags: &[],
        line: "COPY --exclude=m lib /lib-made: --exclude is new: m; lib/m is gone\n",
    },
    Cause {
        change: |p| edit(p, "COPY lib", "COPY --parents lib"),
        flags: &[],
        line: "COPY --parents lib /lib-made: --parents: no → yes",
    },
    Cause {
        change: |p| edit(p, "COPY package.json ./", "COPY list.txt ./"),
        flags: &[],
        line: "COPY list.txt ./: source: package.json → list.txt; ",
    },
    Cause {
        change: |p| edit(p, "COPY <<EOT", "COPY --chmod=600 <<EOT"),
        flags: &[],
        line: "COPY --chmod=600 <<EOT /note: --chmod is new: 0600\n",
    },
    Cause {
        change: |p| std::fs::write(p.path("other/o"), "p").unwrap(),
        flags: &[],
        line: "COPY --from=other o /o: o changed\n",
    },
    Cause {
        change: |p| edit(p, "RUN id", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN id"),
        flags: &[],
        line: "RUN id: SHELL: /bin/sh -c → /bin/sh -ec\n",
    },
    Cause {
        change: |p| edit(p, "RUN id", "RUN id -u"),
        flags: &[],
        line: "RUN id -u: the command changed\n",
    },
    Cause {
        change: |p| edit(p, "RUN id", "RUN --mount=type=tmpfs,target=/x id"),
        flags: &[],
        line: "target=/x id: mount /x is new\n",
    },
    Cause {
        change: |p| edit(p, " --mount=type=tmpfs,target=/m", ""),
        flags: &[],
        line: ": mount /m is gone\n",
    },
    Cause {
        change: |p| edit(p, "target=/tools cat", "target=/tools,rw cat"),
        flags: &[],
        line: ": mount /tools: read-only: yes → no\n",
    },
    Cause {
        change: |p| {
            edit(
                p,
                "target=/tools cat /tools/t",
                "target=/tools2 cat /tools2/t",
            );
        },
        flags: &[],
        line: ": the command changed; mount /tools2 is new; mount /tools is gone\n",
    },
    Cause {
        change: |p| mode(p, "tools/t", 0o755),
        flags: &[],
        line: ": mount /tools: mode of tools/t: 0644 → 0755\n",
    },
    Cause {
        change: |p| edit(p, "mode=0400", "mode=0440"),
        flags: &[],
        line: ": mount /run/secrets/s: mode: 0400 → 0440\n",
    },
    Cause {
        change: |p| edit(p, "id=s,", "id=u,"),
        flags: &[],
        line: ": mount /run/secrets/u is new; mount /run/secrets/s is gone\n",
    },
    Cause {
        change: |p| edit(p, "id=s,", "id=s,env=S,"),
        flags: &[],
        line: ": mount of secret s is new; mount /run/secrets/s is gone\n",
    },
    Cause {
        change: |p| edit(p, "target=/c", "target=/c,mode=0700"),
        flags: &[],
        line: ": mount /c: mode is new: 0700\n",
    },
    Cause {
        change: |p| edit(p, "target=/c", "target=/c,from=busybox"),
        flags: &[],
        line: ": mount /c: content is new\n",
    },
    Cause {
        change: |p| edit(p, "target=/m echo", "target=/m,size=1m echo"),
        flags: &[],
        line: ": mount /m: size is new: 1048576\n",
    },
    Cause {
        change: |p| edit(p, "MODE=a LEVEL=1", "LEVEL=1 MODE=a"),
        flags: &[],
        line: ": the order of its variables or options changed\n",
    },
    Cause {
        change: |p| edit(p, "RUN id", "RUN --network=none id"),
        flags: &[],
        line: "RUN --network=none id: --network: default → none\n",
    },
    Cause {
        change: |_| {},
        flags: &["--network=none"],
        line: "RUN id: --network: default → none\n",
    },
    Cause {
        change: |_| {},
        flags: &["--ulimit=nofile=99"],
        line: "RUN id: --ulimit is new: nofile=99:99\n",
    },
    Cause {
        change: |_| {},
        flags: &["--cgroup-parent=build-test"],
        line: "RUN id: --cgroup-parent is new: build-test\n",
    },
    Cause {
        change: |_| {},
        flags: &["--no-cache-filter=made"],
        line: "COPY lib /lib-made: the cache is ignored for it (--no-cache)\n",
    },
    Cause {
        change: |p| edit(p, "USER 1\nRUN id", "RUN id\nUSER 1"),
        flags: &[],
        line: "RUN id: USER: 1 → \n",
    },
    Cause {
        change: |p| edit(p, "RUN id", "RUN true\nRUN id"),
        flags: &[],
        line: "RUN true: the command changed\n",
    },
    Cause {
        change: |p| {
            edit(
                p,
                "COPY --from=made /lib-made /from-made\nCOPY --from=other o /o",
                "COPY --from=other o /o\nCOPY --from=made /lib-made /from-made",
            );
        },
        flags: &[],
        line: "RUN id: it comes after RUN --mount=type=secret",
    },
    Cause {
        change: |p| edit(p, "ADD list.txt /list\n", ""),
        flags: &[],
        line: "RUN id: it comes after ",
    },
];

#[test]
fn every_known_cause_is_named() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let tried = || {
        let mut wrong = Vec::new();
        loop {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(cause) = CAUSES.get(number) else {
                return wrong;
            };
            wrong.extend(try_cause(cause).map(|why| format!("{number}: {why}")));
        }
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(tried)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the explanation of a cause, if anything is.
fn try_cause(cause: &Cause) -> Option<String> {
    let place = place();
    explained(&place, &[]).says("RUN id: it has not run before\n");
    (cause.change)(&place);
    let told = explained(&place, cause.flags).stderr;
    let is_secret_shown = ["one", "two"]
        .iter()
        .any(|value| told.contains(&format!("echo {value}")))
        || told.contains("one → ")
        || told.contains(" → two");
    let is_named = told.contains(cause.line) && !is_secret_shown;
    (!is_named).then(|| format!("{:?} is not in\n{told}", cause.line))
}

#[test]
fn nothing_is_said_when_nothing_runs() {
    let place = place();
    explained(&place, &[]);
    assert_eq!(explained(&place, &[]).stderr, "");
}

#[test]
fn a_moved_tag_is_the_cause_of_what_runs_on_it() {
    let place = Place::with_dockerfile("FROM base:1\nRUN true\n");
    let bases = ["one", "two"].map(|text| {
        let base = Place::with_dockerfile("FROM busybox\nCOPY f /f\n");
        base.file("f", text);
        let layout = base.path("layout");
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        base.build(&["--output", &output]).success();
        (base, layout)
    });
    let build = |layout: &std::path::Path| {
        let context = format!("--build-context=base:1=oci-layout://{}", layout.display());
        explained(&place, &[&context])
    };
    build(&bases[0].1);
    build(&bases[1].1).says("RUN true: ");
}

#[test]
fn a_pruned_result_and_a_moved_line_are_told() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n");
    explained(&place, &[]);
    edit(&place, "RUN echo b", "ENV A=1\nRUN echo b");
    explained(&place, &[]).says("RUN echo b > /b: ENV A is new: 1\n");
    place.run(["prune"]).success();
    explained(&place, &[]).says("RUN echo a > /a: its result is no longer in the store\n");
}

#[test]
fn a_plan_tells_what_would_run_and_runs_nothing() {
    let place = place();
    let base = testdata("images/busybox");
    let context = format!("busybox=oci-layout://{}", base.display());
    let plan = |form: &str| {
        let mut command = place.command();
        command.args(["explain", form, "--build-context", &context]);
        let other = format!("other={}", place.path("other").display());
        command.args(["--build-context", &other]);
        crate::support::finish(command.arg(place.context())).success()
    };
    let first = plan("--explain");
    assert!(
        first
            .stdout
            .contains("COPY package.json ./: would run: it has not run before\n"),
        "{}",
        first.stdout
    );
    place.build(&[]).success();
    let cached = plan("--explain");
    assert!(!cached.stdout.contains("would run"), "{}", cached.stdout);
    place.file("package.json", "{ }\n");
    let changed: serde_json::Value = serde_json::from_str(&plan("--explain=json").stdout).unwrap();
    let steps = changed["plan"].as_array().unwrap();
    let step = |text: &str| {
        let named = |step: &&serde_json::Value| step["step"].as_str().unwrap().contains(text);
        steps.iter().find(named).unwrap()
    };
    assert_eq!(step("COPY package.json")["state"], "runs");
    assert_eq!(step("COPY package.json")["reason"], "package.json changed");
    assert_eq!(step("RUN echo install")["state"], "runs");
    assert_eq!(step("COPY --chmod=644 src")["state"], "depends");
    // Nothing ran: it still would.
    let again: serde_json::Value = serde_json::from_str(&plan("--explain=json").stdout).unwrap();
    assert_eq!(again, changed);
}
