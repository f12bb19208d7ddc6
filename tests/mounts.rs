//! `RUN --mount` between processes and at both rungs: who shares a cache with whom, what is thrown away, what is refused and how.

use std::time::Duration;

use crate::support::process::Running;
use crate::support::{Place, store};

/// The same test as root and as an ordinary user.
fn at_both_rungs(test: impl Fn(Place)) {
    test(Place::new());
    test(Place::new().unprivileged());
}

/// Runs two commands at once, in builds of their own, with these mounts; both must succeed.
fn at_once(place: &Place, mounts: &str, commands: [&str; 2]) {
    let builds = [0, 1].map(|n| {
        let name = format!("Dockerfile{n}");
        let text = format!("FROM busybox\nRUN {mounts} {}\n", commands[n]);
        place.file(&name, text);
        let mut command = place.build_command();
        command.arg("-f").arg(place.context().join(name));
        Running::start(command.arg(place.context()))
    });
    for build in builds {
        build.end(Duration::from_secs(60)).success();
    }
}

/// Goes on when another process has come here as well: `meet ME OTHER`.
const MEET: &str = "meet() { touch /meet/$1; i=0; while [ ! -e /meet/$2 ]; do i=$((i+1)); [ $i -lt 300 ] || exit 9; sleep 0.1; done; }; ";
const MEETING: &str = "--mount=type=cache,id=meet,target=/meet";

#[test]
fn a_shared_cache_is_one_directory_for_all_at_once() {
    at_both_rungs(|place| {
        let step = |me: &str, other: &str| {
            format!(
                "{MEET} touch /c/{me}; meet {me} {other}; test -e /c/{me} && test -e /c/{other}"
            )
        };
        let mounts = format!("{MEETING} --mount=type=cache,target=/c,sharing=shared");
        at_once(&place, &mounts, [&step("a", "b"), &step("b", "a")]);
    });
}

#[test]
fn a_private_cache_in_use_is_another_directory() {
    at_both_rungs(|place| {
        let step = |me: &str, other: &str| {
            format!("{MEET} touch /c/{me}; meet {me} {other}; test \"$(ls /c)\" = {me}")
        };
        let mounts = format!("{MEETING} --mount=type=cache,target=/c,sharing=private");
        at_once(&place, &mounts, [&step("a", "b"), &step("b", "a")]);
    });
}

#[test]
fn a_locked_cache_is_used_by_one_at_a_time() {
    at_both_rungs(|place| {
        let step = |me: &str| format!("mkdir /c/busy && sleep 1 && echo {me} && rmdir /c/busy");
        let mounts = "--mount=type=cache,target=/c,sharing=locked";
        at_once(&place, mounts, [&step("a"), &step("b")]);
    });
}

#[test]
fn a_cache_has_the_owner_mode_and_content_it_begins_with() {
    at_both_rungs(|place| {
        place.file(
            "Dockerfile",
            "FROM busybox AS seed\nRUN mkdir -p /s/in && echo first > /s/in/f && chown 4:5 /s/in/f\n\
             FROM busybox\nRUN --mount=type=cache,target=/c,from=seed,source=/s/in,uid=7,gid=8,mode=0710 \
             stat -c '%a %u:%g' /c >> /out && stat -c %u:%g /c/f >> /out && cat /c/f >> /out && echo second > /c/f\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s/in,uid=7,gid=8,mode=0710 cat /c/f >> /out\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s/in,uid=7,gid=8,mode=0711 cat /c/f >> /out\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s/in,uid=7,gid=8,mode=0710,ro ! touch /c/new && echo ro >> /out\n",
        );
        let image = place.image(&[]);
        assert_eq!(
            image.text("out"),
            "710 7:8\n4:5\nfirst\nsecond\nfirst\nro\n"
        );
        assert!(!image.files().contains_key("c"));
    });
}

#[test]
fn writes_to_a_bind_are_thrown_away() {
    at_both_rungs(|place| {
        place.file("dir/f", "from the context\n");
        place.file(
            "Dockerfile",
            "FROM busybox AS other\nRUN mkdir /o && echo other > /o/f\nFROM busybox\n\
             RUN --mount=target=/m,rw --mount=from=other,source=/o,target=/o,rw echo x > /m/dir/f && rm /o/f && touch /o/g\n\
             RUN --mount=target=/m --mount=from=other,source=/o,target=/o cat /m/dir/f /o/f > /out && ls /o >> /out && ! touch /m/g\n",
        );
        let image = place.image(&[]);
        assert_eq!(image.text("out"), "from the context\nother\nf\n");
        let kept = std::fs::read_to_string(place.context().join("dir/f")).unwrap();
        assert_eq!(kept, "from the context\n");
        store::settled(&place.root());
        let files = image.files();
        assert!(!files.contains_key("m") && !files.contains_key("o"));
    });
}

#[test]
fn secrets_and_tmpfs_leave_nothing() {
    at_both_rungs(|place| {
        place.file(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=secret,id=s,target=/etc/deep/token,mode=0440,uid=3,gid=4 \
             --mount=type=secret,id=s,env=TOKEN --mount=type=secret,id=absent,env=NONE --mount=type=tmpfs,target=/t,size=2m \
             stat -c '%a %u:%g' /etc/deep/token > /out && test \"$TOKEN\" = \"$(cat /etc/deep/token)\" && test \"${NONE-unset}\" = '' \
             && grep ' /etc/deep/token tmpfs ro,' /proc/mounts > /dev/null && df -k /t | awk 'NR==2{print $2}' >> /out && touch /t/x\n",
        );
        std::fs::write(place.path("secret"), "correct horse").unwrap();
        let secret = format!("--secret=id=s,src={}", place.path("secret").display());
        let image = place.image(&[&secret]);
        assert_eq!(image.text("out"), "440 3:4\n2048\n");
        let files = image.files();
        assert!(!files.contains_key("t") && !files.contains_key("etc/deep"));
        let found = std::process::Command::new("grep")
            .args(["-r", "-l", "correct horse"])
            .arg(place.root())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    });
}

#[test]
fn secrets_that_no_variable_can_hold_are_refused_and_files_of_them_are_not() {
    for bytes in [&b"a\0b"[..], b"\xff"] {
        let place = Place::new();
        place.file("secret", bytes);
        let given = format!(
            "--secret=id=s,src={}",
            place.context().join("secret").display()
        );
        place.file(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=secret,id=s,env=V true\n",
        );
        place
            .build(&[&given])
            .failure(1)
            .says("secret s: not a text, which the variable V needs")
            .says("hint: let the command read it from a file: --mount=type=secret,id=s")
            .says("Dockerfile:2\n");
        let text = "FROM busybox\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /size\n";
        place.file("Dockerfile", text);
        let size = place.image(&[&given]).text("size");
        assert_eq!(size.trim(), bytes.len().to_string());
    }
}

#[test]
fn what_cannot_be_mounted_is_told_with_line_and_remedy() {
    let cases = [
        (
            "--mount=type=secret,id=token,required",
            "secret token: not found",
            "hint: give it with --secret=id=token,src=FILE or --secret=id=token,env=VARIABLE",
        ),
        (
            "--mount=type=cache,target=/etc/passwd",
            "cannot mount to `/etc/passwd`: it is a file, and what is mounted is a directory",
            "",
        ),
        (
            "--mount=type=tmpfs,target=/bin/busybox",
            "cannot mount to `/bin/busybox`: it is a file, and what is mounted is a directory",
            "",
        ),
        (
            "--mount=source=Dockerfile,target=/etc",
            "cannot mount to `/etc`: it is a directory, and what is mounted is a file",
            "",
        ),
        (
            "--mount=target=/proc/self",
            "cannot mount to `/proc/self`: it belongs to the sandbox",
            "",
        ),
        ("--mount=source=/none,target=/m", "\"/none\": not found", ""),
    ];
    for (mount, error, hint) in cases {
        Place::with_dockerfile(&format!("FROM busybox\nRUN {mount} true\n"))
            .build(&[])
            .failure(1)
            .says("Dockerfile:2\n")
            .says(error)
            .says(hint);
    }
}

#[test]
fn the_files_of_every_step_leave_their_directory_as_it_was() {
    at_both_rungs(|place| {
        place.file(
            "Dockerfile",
            "FROM busybox AS upon\n\
             RUN chmod 751 /etc && touch -d @1500000000 /etc\n\
             RUN stat -c '%a %Y' /etc > /seen && test -s /etc/hosts && test -e /etc/resolv.conf\n\
             RUN cp /etc/hosts /etc/mine && ! rm /etc/hosts 2>/dev/null\n\
             RUN stat -c '%a' /etc >> /seen && ls /etc > /names\n\
             FROM scratch\n\
             COPY --from=busybox /bin /bin\n\
             COPY --from=upon /seen /names /\n\
             RUN test -s /etc/hosts && echo made >> /seen\n",
        );
        let image = place.clamped_image(&[]);
        assert_eq!(image.text("seen"), "751 1500000000\n751\nmade\n");
        let names = image.text("names");
        for name in ["hosts\n", "mine\n", "resolv.conf\n"] {
            assert!(names.contains(name), "{names}");
        }
        let files = image.files();
        assert!(!files.keys().any(|path| path.starts_with("etc")), "{names}");
        let built_upon = place.clamped_image(&["--target=upon"]);
        let files = built_upon.files();
        let etc: Vec<_> = files
            .keys()
            .filter(|path| path.starts_with("etc/"))
            .collect();
        assert!(etc.iter().any(|path| *path == "etc/mine"), "{etc:?}");
        for path in ["etc/hosts", "etc/resolv.conf"] {
            assert!(!files.contains_key(path), "{etc:?}");
        }
    });
}
