//! ADD of URLs and repositories, from servers on loopback ports.

use std::path::Path;

use crate::support::git::{COMMIT_TIME, Daemon, Repository};
use crate::support::web::{Page, Web};
use crate::support::{Outcome, Place, finish, store};

const TIME: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
const SECONDS: u64 = 784_903_526;

fn page(body: &str, etag: &str) -> Page {
    Page {
        etag: Some(etag.to_owned()),
        modified: Some(TIME.to_owned()),
        ..Page::new(body)
    }
}

fn add(source: &str) -> Place {
    Place::with_dockerfile(&format!("FROM scratch\nADD {source} /to/\n"))
}

/// Builds with a secret.
fn with_secret(place: &Place, id: &str, value: &str) -> Outcome {
    let file = place.path("secret");
    std::fs::write(&file, value).unwrap();
    place.build(&[&format!("--secret=id={id},src={}", file.display())])
}

/// Whether any file of a directory has these bytes.
fn holds(dir: &Path, wanted: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match std::fs::symlink_metadata(&path).unwrap() {
            metadata if metadata.is_dir() => holds(&path, wanted),
            metadata if metadata.is_file() => {
                let bytes = std::fs::read(&path).unwrap();
                bytes
                    .windows(wanted.len())
                    .any(|part| part == wanted.as_bytes())
            }
            _ => false,
        }
    })
}

#[test]
fn a_file_has_the_servers_time_and_is_asked_for_again_but_not_sent_again() {
    let web = Web::start();
    web.put("/a/f.txt", page("one\n", "\"1\""));
    let place = add(&web.url("/a/f.txt?x=1"));
    let files = place.image(&[]).files();
    let file = &files["to/f.txt"];
    assert_eq!(
        (file.mode, file.uid, file.mtime, file.content.as_slice()),
        (0o600, 0, SECONDS, b"one\n".as_slice())
    );
    assert_eq!(web.take_lines(), ["GET /a/f.txt 200"]);

    let again = place.build(&[]).success();
    assert_eq!(again.ran(), Vec::<String>::new());
    assert_eq!(web.take_lines(), ["GET /a/f.txt 304"]);

    // The same bytes under another tag: sent, but nothing is made of them.
    web.put("/a/f.txt", page("one\n", "\"2\""));
    assert_eq!(place.build(&[]).success().ran(), Vec::<String>::new());
    assert_eq!(web.take_lines(), ["GET /a/f.txt 200"]);

    web.put("/a/f.txt", page("two\n", "\"3\""));
    assert_eq!(place.image(&[]).text("to/f.txt"), "two\n");
    store::assert_tidy(&place.root());
}

#[test]
fn a_server_that_knows_tags_only_by_name_is_believed() {
    let web = Web::start();
    let deaf = Page {
        ignores_validators: true,
        ..page("one\n", "\"1\"")
    };
    web.put("/f", deaf.clone());
    let place = add(&web.url("/f"));
    place.build(&[]).success();
    web.put(
        "/f",
        Page {
            body: b"not looked at".to_vec(),
            ..deaf
        },
    );
    assert_eq!(place.image(&[]).text("to/f"), "one\n");
}

#[test]
fn a_checksum_is_verified_and_saves_asking() {
    let web = Web::start();
    web.put("/f", Page::new("hello\n"));
    let right = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let place = add(&format!("--checksum=sha256:{right} {}", web.url("/f")));
    assert_eq!(place.image(&[]).files()["to/f"].mtime, 0);
    assert_eq!(web.take_lines(), ["GET /f 200"]);
    place.build(&[]).success();
    assert_eq!(web.take_lines(), Vec::<String>::new());

    let wrong = "0".repeat(64);
    let place = add(&format!("--checksum=sha256:{wrong} {}", web.url("/f")));
    place
        .build(&[])
        .failure(1)
        .says(&format!("is sha256:{right}, expected sha256:{wrong}"))
        .says("Dockerfile:2");
    store::assert_tidy(&place.root());
}

#[test]
fn an_answer_that_is_none_is_an_error_at_its_line() {
    let web = Web::start();
    let place = add(&web.url("/gone?token=hush"));
    place
        .build(&[])
        .failure(1)
        .says("invalid response status 404")
        .says(">>> ADD http://");
    let place = add("http://127.0.0.1:1/f");
    place.build(&[]).failure(1).says("failed to do request");
}

#[test]
fn what_may_be_a_secret_in_an_address_is_not_shown() {
    let web = Web::start();
    web.put("/f", page("one", "\"1\""));
    let place = Place::with_dockerfile("FROM scratch\nARG URL\nADD $URL /to/\n");
    let address = web.url("/f?sig=hush&exp=1");
    let argument = format!("--build-arg=URL={address}");
    let shown = web.url("/f?sig=***&exp=***");
    for flags in [
        &["--progress=plain"][..],
        &["--progress=rawjson"],
        &["--explain"],
    ] {
        let outcome = place
            .build(&[&[argument.as_str()], flags].concat())
            .success();
        outcome.says(&shown).does_not_say("hush");
    }
    let image = place.image(&[&argument]);
    let history = image.history();
    let is_whole = |line: &String| line.starts_with(&format!("ADD {address} "));
    assert!(history.iter().any(is_whole), "{history:?}");
    let wrong = argument.replace("http://", "http://me:hush@[");
    place.build(&[&wrong]).failure(1).does_not_say("hush");
}

#[test]
fn a_credential_reaches_its_host_and_no_other() {
    let (web, other) = (Web::start(), Web::start());
    let host = &web.address;
    for (id, sent) in [
        (format!("HTTP_AUTH_TOKEN_{host}"), "Bearer hush-hush"),
        ("HTTP_AUTH_HEADER_127.0.0.1".to_owned(), "hush-hush"),
    ] {
        let locked = Page {
            authorization: Some(sent.to_owned()),
            ..Page::new("treasure\n")
        };
        web.put("/locked", locked);
        let place = add(&web.url("/locked"));
        place
            .build(&[])
            .failure(1)
            .says("invalid response status 401");
        with_secret(&place, &id, "hush-hush\n")
            .success()
            .does_not_say("hush");
        assert!(!holds(&place.root(), "hush-hush"));
    }
    // Two ports of one address are two hosts.
    other.put("/f", Page::new("public\n"));
    let redirect = Page {
        status: 302,
        location: Some(other.url("/f")),
        authorization: Some("Bearer t".to_owned()),
        ..Page::default()
    };
    web.put("/moved", redirect);
    let place = add(&web.url("/moved"));
    with_secret(&place, &format!("HTTP_AUTH_TOKEN_{host}"), "t").success();
    let seen = other.take_seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
}

#[test]
fn an_archive_is_a_file_unless_it_is_to_be_unpacked() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_mtime(7);
    tar.append_data(&mut header, "in/side", b"x\n".as_slice())
        .unwrap();
    let web = Web::start();
    web.put("/a.tar", Page::new(tar.into_inner().unwrap()));
    let place = Place::with_dockerfile(&format!(
        "FROM scratch\nADD {0} /file/\nADD --unpack=true {0} /files/\nADD --chmod=0755 --chown=5:6 {0} /other\n",
        web.url("/a.tar")
    ));
    let files = place.image(&[]).files();
    assert!(files.contains_key("file/a.tar"));
    assert_eq!(files["files/in/side"].mode, 0o640);
    let other = &files["other"];
    assert_eq!((other.mode, other.uid, other.gid), (0o755, 5, 6));
    // One address, one request.
    assert_eq!(web.take_lines(), ["GET /a.tar 200"]);
}

/// A repository with two commits, a branch, two tags and a directory, published as `served/r.git`.
fn repository(place: &Place) -> (Repository, String, String) {
    let repository = Repository::new(&place.path("work"));
    repository.file("a", "one\n").file("d/b", "below\n");
    repository.file("run", "#!/bin/sh\n");
    let run = repository.path("run");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o775);
    std::fs::set_permissions(run, executable).unwrap();
    for (name, target) in [("link", "a"), ("below", "/d"), ("out", "../../work")] {
        std::os::unix::fs::symlink(target, repository.path(name)).unwrap();
    }
    let first = repository.commit();
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "--annotate", "--message=x", "heavy"]);
    repository.git(&["branch", "side"]);
    repository.file("a", "two\n");
    let second = repository.commit();
    repository.publish(&place.path("served/r.git"));
    (repository, first, second)
}

#[test]
fn a_repository_is_taken_at_any_reference() {
    let place = Place::new();
    let (_repository, first, second) = repository(&place);
    let web = Web::start();
    web.serve_git(&place.path("served"), None);
    // What the user has set up for git has no say.
    let config =
        "[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://\n[core]\n\tautocrlf = true\n";
    std::fs::write(place.path("home/.gitconfig"), config).unwrap();
    for (reference, want) in [
        ("", "two\n"),
        ("#main", "two\n"),
        ("#side", "one\n"),
        ("#light", "one\n"),
        ("#heavy", "one\n"),
        ("#refs/heads/side", "one\n"),
        (&format!("#{first}"), "one\n"),
        ("?branch=side", "one\n"),
        ("?tag=heavy", "one\n"),
        (&format!("?ref=main&checksum={}", &second[..10]), "two\n"),
    ] {
        let url = format!("{}{reference}", web.url("/git/r.git"));
        place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
        let files = place.image(&[]).files();
        assert_eq!(
            String::from_utf8_lossy(&files["to/a"].content),
            want,
            "{reference}"
        );
        assert_eq!(
            (files["to/a"].mode, files["to/a"].mtime),
            (0o644, COMMIT_TIME)
        );
        assert_eq!((files["to/run"].mode, files["to/d"].mode), (0o755, 0o755));
        assert_eq!(files["to/link"].link.as_deref(), Some("a"));
        assert!(!files.contains_key("to/.git"));
    }
    web.take_seen();
    // An unchanged branch is asked for and not fetched; of a commit nobody is asked.
    place.build(&[]).success();
    let posts = |lines: &[String]| lines.iter().filter(|l| l.starts_with("POST")).count();
    assert_eq!(posts(&web.take_lines()), 1);
    let url = format!("{}#{first}", web.url("/git/r.git"));
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    assert_eq!(place.build(&[]).success().ran(), Vec::<String>::new());
    assert_eq!(web.take_lines(), Vec::<String>::new());
    store::assert_tidy(&place.root());
}

#[test]
fn a_moved_branch_is_fetched_and_a_directory_can_be_the_root() {
    let place = Place::new();
    let (repository, ..) = repository(&place);
    let daemon = Daemon::start(&place.path("served"));
    let url = format!("git://{}/r.git#main:d", daemon.address);
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    assert_eq!(place.image(&[]).text("to/b"), "below\n");
    repository.file("d/b", "moved\n").commit();
    repository.publish(&place.path("served/r.git"));
    assert_eq!(place.image(&[]).text("to/b"), "moved\n");
    let linked = url.replace("#main:d", "#main:below");
    place.file("Dockerfile", format!("FROM scratch\nADD {linked} /to/\n"));
    assert_eq!(place.image(&[]).text("to/b"), "moved\n");

    for (fragment, why) in [
        ("main:nowhere", "has no directory `nowhere`"),
        ("main:link", "has no directory `link`"),
        ("main:out", "has no directory `out`"),
        ("main:below/../../served", "has no directory `below"),
        ("nothing", "does not contain ref nothing"),
        (
            "--upload-pack=touch${IFS}x",
            "invalid git ref `--upload-pack=touch",
        ),
        (&"0".repeat(40), "0000"),
    ] {
        let url = format!("git://{}/r.git#{fragment}", daemon.address);
        place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
        place.build(&[]).failure(1).says(why).says("Dockerfile:2");
    }
    let url = format!("git://{}/r.git?ref=main&checksum=dead", daemon.address);
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    let failed = place.build(&[]).failure(1);
    drop(failed.says("expected checksum to match dead, got "));
    store::assert_tidy(&place.root());
}

/// A commit that was fetched by itself stays what it is; the reference only says where it came from.
#[test]
fn a_commit_is_had_after_its_branch_has_moved_on() {
    let place = Place::new();
    let (repository, first, second) = repository(&place);
    let web = Web::start();
    web.serve_git(&place.path("served"), None);
    repository.file("a", "three\n").commit();
    repository.publish(&place.path("served/r.git"));
    let at = |query: &str| web.url(&format!("/git/r.git?branch=main{query}"));

    let moved = at(&format!("&checksum={second}"));
    place.file("Dockerfile", format!("FROM scratch\nADD {moved} /to/\n"));
    let failed = place.build(&[]).failure(1);
    drop(
        failed
            .says("expected checksum to match")
            .says("Dockerfile:2"),
    );

    let pinned = at("&fetch-by-commit=true");
    let with_flag = format!("--checksum={second} {pinned}");
    let in_url = at(&format!("&commit={second}&fetch-by-commit"));
    for source in [&with_flag, &in_url] {
        place.file("Dockerfile", format!("FROM scratch\nADD {source} /to/\n"));
        assert_eq!(place.image(&[]).text("to/a"), "two\n", "{source}");
    }
    // Who has it asks nobody.
    web.take_seen();
    assert_eq!(place.build(&[]).success().ran(), Vec::<String>::new());
    assert_eq!(web.take_lines(), Vec::<String>::new());

    let named = at(&format!("&commit={first}&fetch-by-commit=1"));
    place.file("Dockerfile", "FROM scratch\nCOPY --from=repo a /to/a\n");
    let named = format!("--build-context=repo={named}");
    assert_eq!(place.image(&[&named]).text("to/a"), "one\n");

    place.file("Dockerfile", format!("FROM scratch\nADD {pinned} /to/\n"));
    let failed = place.build(&[]).failure(1);
    drop(failed.says("needs the commit in full").says("Dockerfile:2"));
}

#[test]
fn submodules_come_along_unless_told_otherwise() {
    let place = Place::new();
    let inner = Repository::new(&place.path("inner"));
    inner.file("deep", "sub\n").commit();
    inner.publish(&place.path("served/inner.git"));
    let outer = Repository::new(&place.path("outer"));
    let url = place.path("served/inner.git").display().to_string();
    outer.git(&["submodule", "--quiet", "add", &url, "mod"]);
    outer.git(&[
        "config",
        "--file=.gitmodules",
        "submodule.mod.url",
        "../inner.git",
    ]);
    outer.file("a", "x\n").commit();
    outer.publish(&place.path("served/outer.git"));
    let web = Web::start();
    web.serve_git(&place.path("served"), None);
    let url = web.url("/git/outer.git");
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    let files = place.image(&[]).files();
    assert_eq!(files["to/mod/deep"].content, b"sub\n");
    assert_eq!(files["to/mod/deep"].mtime, COMMIT_TIME);
    assert!(!files.keys().any(|path| path.ends_with(".git")));

    place.file(
        "Dockerfile",
        format!("FROM scratch\nADD {url}?submodules=false /to/\n"),
    );
    let files = place.image(&[]).files();
    assert!(files.contains_key("to/mod") && !files.contains_key("to/mod/deep"));

    // A submodule that would run a program, or read this machine's files.
    for hostile in [
        "ext::touch /tmp/never",
        &place.path("served/inner.git").display().to_string(),
    ] {
        outer.git(&["config", "--file=.gitmodules", "submodule.mod.url", hostile]);
        outer.commit();
        outer.publish(&place.path("served/outer.git"));
        place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
        place.build(&[]).failure(1).says("not allowed");
    }
}

#[test]
fn a_kept_git_dir_is_a_repository_without_the_password() {
    let place = Place::new();
    let (_repository, _, second) = repository(&place);
    let web = Web::start();
    web.serve_git(&place.path("served"), Some("Basic dXNlcjpodXNo"));
    let url = format!("http://user:hush@{}/git/r.git", web.address);
    place.file(
        "Dockerfile",
        format!("FROM scratch\nADD --keep-git-dir=true {url} /to/\n"),
    );
    let tree = place.tree(&[]);
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        let command = command.args(["-c", "safe.directory=*", "-C"]);
        finish(command.arg(tree.join("to")).args(args))
            .success()
            .stdout
    };
    assert_eq!(git(&["rev-parse", "HEAD"]).trim(), second);
    assert_eq!(git(&["status", "--porcelain"]), "");
    let origin = git(&["remote", "get-url", "origin"]);
    assert_eq!(origin.trim(), web.url("/git/r.git"));
    assert!(!holds(&tree, "hush"));
}

#[test]
fn a_token_opens_a_repository_and_is_kept_nowhere() {
    let place = Place::new();
    repository(&place);
    let web = Web::start();
    // x-access-token:hush-hush
    let wanted = "basic eC1hY2Nlc3MtdG9rZW46aHVzaC1odXNo";
    web.serve_git(&place.path("served"), Some(wanted));
    let url = web.url("/git/r.git");
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    place.build(&[]).failure(1).says("failed to fetch remote");
    with_secret(&place, "GIT_AUTH_TOKEN", "hush-hush\n")
        .success()
        .does_not_say("hush");
    assert!(!holds(&place.root(), "hush-hush") && !holds(&place.root(), &wanted[6..]));

    let other = Web::start();
    let moved = Page {
        status: 302,
        location: Some(other.url("/git/r.git/info/refs?service=git-upload-pack")),
        ..Page::default()
    };
    web.put("/moved.git/info/refs", moved);
    let url = web.url("/moved.git");
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    with_secret(&place, "GIT_AUTH_TOKEN", "hush-hush\n").failure(1);
    assert!(other.take_seen().is_empty());
}

#[test]
fn without_git_the_error_says_so() {
    let place = add("git://127.0.0.1:1/r.git");
    let mut command = place.build_command();
    let command = command.arg(place.context()).env("PATH", "/nowhere");
    finish(command)
        .failure(1)
        .says("needs the program `git`, which is not installed");
}

#[test]
fn users_without_privileges_get_the_same_bytes() {
    let served = Place::new();
    repository(&served);
    let web = Web::start();
    web.serve_git(&served.path("served"), None);
    web.put("/f", Page::new("file\n"));
    let dockerfile = format!(
        "FROM scratch\nADD {} /to/\nADD {} /to/\n",
        web.url("/git/r.git"),
        web.url("/f")
    );
    let digests = [
        Place::with_dockerfile(&dockerfile),
        Place::with_dockerfile(&dockerfile).unprivileged(),
    ]
    .map(|place| {
        let image = place.image(&["--build-arg=SOURCE_DATE_EPOCH=0"]);
        store::assert_tidy(&place.root());
        image.digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn names_that_would_delete_are_refused() {
    let place = Place::new();
    let repository = Repository::new(&place.path("work"));
    repository.file("d/.wh.etc", "").commit();
    repository.publish(&place.path("served/r.git"));
    let daemon = Daemon::start(&place.path("served"));
    let url = format!("git://{}/r.git", daemon.address);
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    let failed = place.build(&[]);
    assert_ne!(failed.code, Some(0));
    drop(failed.says("`/d/.wh.etc`"));
    store::assert_tidy(&place.root());
}

#[test]
fn a_file_that_changed_within_the_second_of_its_time_is_fetched_again() {
    let web = Web::start();
    let put = |body: &str, date: &str| {
        let page = Page {
            modified: Some(TIME.to_owned()),
            date: Some(date.to_owned()),
            ..Page::new(body)
        };
        web.put("/f", page);
    };
    let place = add(&web.url("/f"));
    let text = || place.image(&[]).text("to/f");
    put("one", TIME);
    assert_eq!(text(), "one");
    put("two", TIME);
    assert_eq!(text(), "two");
    put("two", "Tue, 15 Nov 1994 12:45:30 GMT");
    assert_eq!(text(), "two");
    web.take_seen();
    assert_eq!(text(), "two");
    assert_eq!(web.take_seen()[0].status, 304);
}
