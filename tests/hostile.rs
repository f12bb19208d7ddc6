//! Hostile archives and base images, each as a source of ADD, as a context on standard input, from a web server, and as the
//! layer of a base: an error that names it or the right image, and a store that verifies, with nothing left in it.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use crate::support::image::Image;
use crate::support::process::measured;
use crate::support::web::{Page, Web};
use crate::support::{Outcome, Place, finish, layout, store, unmount};

/// A member: its kind, its name, its content or link, PAX records, and what else is done to its header.
struct Member<'a> {
    kind: u8,
    name: &'a [u8],
    content: &'a [u8],
    records: &'a [(&'a str, &'a [u8])],
    edit: fn(&mut [u8]),
}

impl Member<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        if !self.records.is_empty() {
            let mut body = Vec::new();
            for (key, value) in self.records {
                let rest = key.len() + value.len() + 3;
                let mut length = rest;
                while length != rest + length.to_string().len() {
                    length = rest + length.to_string().len();
                }
                body.extend(format!("{length} {key}=").bytes());
                body.extend(*value);
                body.push(b'\n');
            }
            block(out, b'x', b"extension", &body, |_| {});
        }
        block(out, self.kind, self.name, self.content, self.edit);
    }
}

/// A header with its content, or a link with its text.
fn block(out: &mut Vec<u8>, kind: u8, name: &[u8], content: &[u8], edit: fn(&mut [u8])) {
    let is_link = matches!(kind, b'1' | b'2');
    let mut header = [0_u8; 512];
    let name = &name[..name.len().min(100)];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000755");
    let size = if is_link { 0 } else { content.len() };
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[156] = kind;
    if is_link {
        header[157..157 + content.len()].copy_from_slice(content);
    }
    header[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.extend(header);
    if !is_link {
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

/// A plain member.
fn member<'a>(kind: u8, name: &'a [u8], content: &'a [u8]) -> Member<'a> {
    Member {
        kind,
        name,
        content,
        records: &[],
        edit: |_| {},
    }
}

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    // What comes first tells that it is an archive.
    member(b'0', b"first", b"1").write(&mut out);
    members.iter().for_each(|member| member.write(&mut out));
    out.extend([0; 1024]);
    out
}

/// The four ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Add,
    Stdin,
    Web,
    Base,
}

const WAYS: [Way; 4] = [Way::Add, Way::Stdin, Way::Web, Way::Base];

/// Builds with a tar in one of the ways; what it holds is at `/x` in the image.
fn build(place: &Place, way: Way, tar: &[u8]) -> Outcome {
    let output = format!("type=oci,dest={}", place.path("image.tar").display());
    let file = place.path("hostile.tar");
    fs::write(&file, tar).unwrap();
    let mut command = place.build_command();
    command.args(["--output", &output]);
    let whole = "FROM scratch\nCOPY . /x/\n";
    match way {
        Way::Add => {
            place.file("Dockerfile", "FROM busybox\nADD hostile.tar /x/\n");
            fs::copy(&file, place.context().join("hostile.tar")).unwrap();
            command.arg(place.context());
        }
        Way::Stdin => {
            fs::write(place.path("df"), whole).unwrap();
            command.arg("-f").arg(place.path("df")).arg("-");
            command.stdin(Stdio::from(File::open(&file).unwrap()));
        }
        Way::Web => {
            fs::write(place.path("df"), whole).unwrap();
            let web = Web::start();
            web.put("/c.tar", Page::new(tar));
            command
                .arg("-f")
                .arg(place.path("df"))
                .arg(web.url("/c.tar"));
        }
        Way::Base => {
            place.file("Dockerfile", "FROM busybox\nCOPY --from=hostile / /x/\n");
            let dir = place.path("layout");
            layout::write(&dir, &[&file], &layout::config());
            command.arg(format!(
                "--build-context=hostile=oci-layout://{}",
                dir.display()
            ));
            command.arg(place.context());
        }
    }
    finish(&mut command)
}

/// A place, with a file outside of everything that is built.
fn guarded() -> Place {
    let place = Place::new();
    fs::write(place.path("outside"), "untouched").unwrap();
    place
}

/// What holds whatever was tried.
fn assert_unharmed(place: &Place, why: &str) {
    assert_eq!(
        fs::read_to_string(place.path("outside")).unwrap(),
        "untouched",
        "{why}"
    );
    store::assert_tidy(&place.root());
    let checked = place.run(["fsck"]).success();
    assert!(
        checked.stdout.contains("all well"),
        "{why}: {}",
        checked.stdout
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn what_cannot_be_is_an_error_that_names_it() {
    let long = b"a/".repeat(50_000);
    let deep = b"d/".repeat(2_040);
    let records = |key, value| [(key, value)];
    let paths = [records("path", long.as_slice()), records("path", b"a\0b")];
    let numbers = [
        records("uid", b"4294967295"),
        records("size", b"-5"),
        records("size", b"9223372036854775807"),
        records("GNU.sparse.major", b"1"),
    ];
    let extended = |records| Member {
        records,
        ..member(b'0', b"f", b"")
    };
    let comment = vec![b'c'; 2 << 20];
    let bomb = records("comment", comment.as_slice());
    let edited = |kind, edit: fn(&mut [u8])| Member {
        edit,
        ..member(kind, b"f", b"")
    };
    let below = [(
        "path",
        [b"l/".as_slice(), &b"e/".repeat(1_500), b"f"].concat(),
    )];
    let below = [("path", below[0].1.as_slice())];
    let deep_path = [("path", deep.as_slice())];
    let deep_link = [("linkpath", deep.as_slice())];
    // What is said of an archive, and of a layer.
    let cases: Vec<(Vec<Member<'_>>, &str, &str)> = vec![
        (
            vec![member(b'1', b"h", b"../../../etc/passwd")],
            "no such file",
            "/h",
        ),
        (
            vec![member(b'1', b"h", b"/etc/passwd")],
            "no such file",
            "/h",
        ),
        (
            vec![member(b'5', b"d/", b""), member(b'1', b"h", b"d")],
            "hard link to a directory",
            "/h",
        ),
        (
            vec![
                member(b'2', b"a", b"b"),
                member(b'2', b"b", b"a"),
                member(b'0', b"a/f", b""),
            ],
            "too many levels",
            "too many levels",
        ),
        (vec![member(b'3', b"null", b"")], "device 0/0", "device 0/0"),
        (
            vec![edited(b'3', |header| {
                header[329..336].copy_from_slice(b"7777777");
            })],
            "out of range",
            "out of range",
        ),
        (
            vec![extended(&paths[0])],
            "longer than 4095 bytes",
            "too long",
        ),
        (vec![extended(&paths[1])], "NUL", "NUL"),
        (vec![member(b'2', b"l", b"")], "a link to nothing", "/l"),
        (vec![extended(&numbers[0])], "out of range", "out of range"),
        (
            vec![extended(&numbers[1])],
            "the size is not",
            "the size is not",
        ),
        (
            vec![extended(&numbers[2])],
            "more bytes than",
            "unexpected end",
        ),
        (vec![extended(&numbers[3])], "sparse", "sparse"),
        (vec![extended(&bomb)], "more than 1 MiB", "more than 1 MiB"),
        (
            vec![edited(b'0', |header| header[124..136].fill(0xff))],
            "the size is not",
            "the size is not",
        ),
        (vec![edited(b'S', |_| {})], "sparse", "sparse"),
        (
            vec![
                Member {
                    records: &deep_path,
                    ..member(b'5', b"x", b"")
                },
                Member {
                    records: &deep_link,
                    ..member(b'2', b"l", b"t")
                },
                Member {
                    records: &below,
                    ..member(b'0', b"f", b"")
                },
            ],
            "more than 4095 bytes",
            "too long",
        ),
    ];
    let place = guarded();
    for (members, of_archive, of_layer) in &cases {
        let bytes = tar(members);
        for way in WAYS {
            let outcome = build(&place, way, &bytes);
            let text = format!("{way:?} {of_archive}: {}", outcome.stderr);
            assert!(matches!(outcome.code, Some(1 | 3)), "{text}");
            let wanted = match way {
                Way::Add | Way::Stdin | Way::Web => [*of_archive, "cannot unpack `/"],
                Way::Base => [*of_layer, "of the OCI layout"],
            };
            let is_loop = *of_archive == "too many levels" || *of_archive == "more than 4095 bytes";
            assert!(outcome.stderr.contains(wanted[0]), "{text}");
            assert!(
                is_loop && way != Way::Base || outcome.stderr.contains(wanted[1]),
                "{text}"
            );
        }
    }
    let whole = tar(&[member(b'0', b"f", b"content")]);
    for end in [700, 1_100, 1_540] {
        for way in WAYS {
            let failed = build(&place, way, &whole[..end]);
            assert_ne!(failed.code, Some(0), "{end} {way:?}");
            assert!(
                failed.stderr.contains("unexpected"),
                "{way:?} {}",
                failed.stderr
            );
        }
    }
    assert_unharmed(&place, "errors");
}

#[test]
fn what_climbs_or_links_stays_below_the_root() {
    let place = guarded();
    let outside = place.path("outside");
    let outside = outside.to_str().unwrap().as_bytes();
    let bytes = tar(&[
        member(b'0', b"../../up", b"1"),
        member(b'0', b"/absolute", b"2"),
        member(b'2', b"out", outside),
        member(b'0', b"out", b"replaced"),
        member(b'2', b"root", b"/"),
        member(b'0', b"root/through", b"3"),
        member(b'2', b"chain", b"root/../.."),
        member(b'0', b"chain/again", b"4"),
        member(b'5', b"twice/", b""),
        member(b'0', b"twice/below", b"5"),
        member(b'0', b"twice", b"6"),
        member(b'1', b"hard", b"../../up"),
    ]);
    for way in WAYS {
        drop(build(&place, way, &bytes).success());
        let image = Image::read(&place.path("image.tar"));
        for (path, want) in [
            ("up", "1"),
            ("absolute", "2"),
            ("out", "replaced"),
            ("through", "3"),
            ("again", "4"),
            ("twice", "6"),
            ("hard", "1"),
        ] {
            assert_eq!(image.text(&format!("x/{path}")), want, "{way:?} {path}");
        }
        assert!(!image.files().contains_key("x/twice/below"), "{way:?}");
    }
    assert_unharmed(&place, "climbing");
}

#[test]
fn overlays_own_attributes_are_no_content() {
    let records: [(&str, &[u8]); 5] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/root"),
        ("SCHILY.xattr.user.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.whiteout", b"y"),
    ];
    let place = guarded();
    let bytes = tar(&[
        Member {
            records: &records,
            ..member(b'5', b"bin/", b"")
        },
        Member {
            records: &records,
            ..member(b'0', b"bin/new", b"n")
        },
    ]);
    fs::write(place.context().join("t.tar"), &bytes).unwrap();
    let run = "RUN test -e /bin/sh && test $(cat /bin/new) = n";
    place.file("Dockerfile", format!("FROM busybox\nADD t.tar /\n{run}\n"));
    drop(place.build(&[]).success());
    // In a base image, above what must not be hidden.
    let file = place.path("t.tar");
    fs::write(&file, &bytes).unwrap();
    let busybox = place.path("busybox.tar");
    place.file("Dockerfile", "FROM busybox\n");
    let output = format!("type=oci,dest={}", place.path("image.tar").display());
    drop(place.build(&["--output", &output]).success());
    fs::write(&busybox, &Image::read(&place.path("image.tar")).layers[0]).unwrap();
    let dir = place.path("layout");
    layout::write(&dir, &[&busybox, &file], &layout::config());
    place.file("Dockerfile", format!("FROM hostile\n{run}\n"));
    let base = format!("--build-context=hostile=oci-layout://{}", dir.display());
    drop(place.build(&[&base]).success());
    assert_unharmed(&place, "attributes");
}

#[test]
fn bombs_end_in_errors_with_bounded_memory() {
    let place = guarded();
    // Directories 2 000 deep, and again below another name: 4 MB each in an index, 30 bytes each in the archive.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut plain = Vec::new();
    for number in 0..300 {
        let path = format!("{number}/{}f", "d/".repeat(2_000));
        let records = [("path", path.as_bytes())];
        Member {
            records: &records,
            ..member(b'0', b"f", b"")
        }
        .write(&mut plain);
    }
    gzip.write_all(&plain).unwrap();
    fs::write(place.context().join("deep.tgz"), gzip.finish().unwrap()).unwrap();
    fs::write(place.path("deep.tar"), &plain).unwrap();
    let dir = place.path("layout");
    layout::write(&dir, &[&place.path("deep.tar")], &layout::config());
    let base = format!("--build-context=hostile=oci-layout://{}", dir.display());
    for (dockerfile, why) in [
        (
            "FROM scratch\nADD deep.tgz /\n",
            "its names take more than 384 MiB",
        ),
        (
            "FROM hostile\nCOPY deep.tgz /0/d/\n",
            "the names up to here take more than 512 MiB",
        ),
    ] {
        place.file("Dockerfile", dockerfile);
        let (outcome, most) = measured(&place, &place.context(), &[&base]);
        assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
        assert!(most < 1_000_000, "{most} KB for {dockerfile}");
    }
    assert_unharmed(&place, "bombs");
}

/// A small file system, unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, size: &str) -> Self {
        fs::create_dir(&at).unwrap();
        let mut mount = std::process::Command::new("mount");
        let options = format!("size={size},mode=700");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at);
        drop(finish(&mut mount).success());
        Self(at)
    }

    fn free_bytes(&self) -> u64 {
        let free = rustix::fs::statvfs(&self.0).unwrap();
        free.f_bavail * free.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

#[test]
fn what_the_disk_has_no_room_for_is_not_unpacked() {
    let place = guarded();
    let disk = SmallDisk::mount(place.root(), "24m");
    // 64 MB, of some kilobytes.
    let zeros = vec![0; 64 << 20];
    let bytes = tar(&[member(b'0', b"zeros", &zeros)]);
    fs::write(place.path("zeros.tar"), &bytes).unwrap();
    let dir = place.path("layout");
    layout::write(&dir, &[&place.path("zeros.tar")], &layout::config());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    fs::write(place.context().join("zeros.tgz"), gzip.finish().unwrap()).unwrap();
    let base = format!("--build-context=hostile=oci-layout://{}", dir.display());
    let free = {
        place.file("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n");
        drop(place.build(&[]).success());
        store::settled(&place.root());
        disk.free_bytes()
    };
    for dockerfile in [
        "FROM busybox\nADD zeros.tgz /\n",
        "FROM hostile\nRUN true\n",
        "FROM busybox\nCOPY --from=hostile / /\n",
    ] {
        place.file("Dockerfile", dockerfile);
        let outcome = place.build(&[&base]);
        assert_ne!(outcome.code, Some(0), "{dockerfile}");
        drop(outcome.says("unpacks to more bytes than the file system of the store"));
        store::assert_tidy(&place.root());
        // The blob of the base, its index, and records stay.
        assert!(free - disk.free_bytes() < 2 << 20, "{dockerfile}");
    }
    assert_unharmed(&place, "a small disk");
}

#[test]
fn room_for_a_base_is_made_of_what_nobody_needs() {
    let place = guarded();
    let disk = SmallDisk::mount(place.root(), "96m");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()
        };
        std::iter::repeat_with(&mut next)
            .flatten()
            .take(bytes)
            .collect()
    };
    fs::write(place.context().join("junk"), noise(48 << 20)).unwrap();
    place.file("Dockerfile", "FROM scratch\nCOPY junk /\n");
    // As if it were a part of a large disk: only what fits counts.
    let build = |args: &[&str]| {
        let mut command = place.build_command();
        command.env("BUILD_MAX_USED_SPACE", "10GB");
        drop(finish(command.args(args).arg(place.context())).success());
    };
    build(&[]);
    store::settled(&place.root());
    // Compresses to a third.
    let text: Vec<u8> = noise(10 << 20)
        .chunks(16)
        .flat_map(|bytes| bytes.repeat(4))
        .collect();
    fs::write(place.path("text.tar"), tar(&[member(b'0', b"text", &text)])).unwrap();
    let dir = place.path("layout");
    layout::write(&dir, &[&place.path("text.tar")], &layout::config());
    assert!(disk.free_bytes() > 40 << 20, "room for the blob and more");
    let base = format!("--build-context=base=oci-layout://{}", dir.display());
    place.file(
        "Dockerfile",
        "FROM base\nWORKDIR /w\nCOPY --from=busybox /bin /bin\nRUN [\"true\"]\n",
    );
    build(&[&base]);
}

#[test]
fn a_tree_of_two_thousand_levels_is_built_copied_and_removed() {
    let path = "d/".repeat(2_000);
    let records = [("path", path.as_bytes())];
    let bytes = tar(&[Member {
        records: &records,
        ..member(b'5', b"x", b"")
    }]);
    let place = guarded();
    fs::write(place.path("deep.tar"), &bytes).unwrap();
    fs::write(place.context().join("deep.tar"), &bytes).unwrap();
    let dir = place.path("layout");
    layout::write(&dir, &[&place.path("deep.tar")], &layout::config());
    let base = format!("--build-context=deep=oci-layout://{}", dir.display());
    let text = "FROM busybox\nADD deep.tar /\nCOPY --from=deep / /\nCOPY missing /\n";
    place.file("Dockerfile", text);
    // What was made until the error is kept, in a store that is fit to be cleaned out.
    let (outcome, _) = measured(&place, &place.context(), &[&base]);
    assert!(
        outcome.stderr.contains("\"/missing\": not found"),
        "{}",
        outcome.stderr
    );
    store::assert_tidy(&place.root());
    drop(place.run(["prune", "--all"]).success());
    store::assert_tidy(&place.root());
    let trees = fs::read_dir(place.root().join("trees")).unwrap().count();
    assert_eq!(trees, 0);
}
