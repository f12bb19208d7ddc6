#!/usr/bin/env python3
"""Writes testdata/images/busybox, a small base image as an OCI layout, from Debian's busybox-static.

    apt-get install busybox-static && python3 testdata/images/make-busybox.py /bin/busybox

The same busybox gives the same bytes. Its source is Debian's source package `busybox`; it is under GPL-2."""
import gzip, hashlib, io, json, pathlib, subprocess, sys, tarfile, zlib

HERE = pathlib.Path(__file__).resolve().parent


def layer(busybox):
    out = io.BytesIO()
    tar = tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT)

    def add(name, kind, mode, data=b"", link=""):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
        tar.addfile(info, io.BytesIO(data))

    def folder(name, mode=0o755):
        add(name, tarfile.DIRTYPE, mode)

    folder("bin")
    add("bin/busybox", tarfile.REGTYPE, 0o755, pathlib.Path(busybox).read_bytes())
    for applet in sorted(subprocess.check_output([busybox, "--list"], text=True).split()):
        if applet != "busybox":
            add("bin/" + applet, tarfile.SYMTYPE, 0o777, link="busybox")
    folder("etc")
    add("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nstaff:x:50:app\nnogroup:x:65534:\napp:x:1000:\n")
    add("etc/passwd", tarfile.REGTYPE, 0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\n")
    folder("home")
    folder("root", 0o700)
    folder("tmp", 0o1777)
    folder("usr")
    folder("usr/bin")
    add("usr/bin/env", tarfile.SYMTYPE, 0o777, link="../../bin/busybox")
    folder("var")
    tar.close()
    return out.getvalue()


def main(busybox):
    dest = HERE / "busybox"
    blobs = dest / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for old in blobs.iterdir():
        old.unlink()

    def put(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    tar = layer(busybox)
    blob = gzip.compress(tar, 9, mtime=0)
    config = {"architecture": "amd64", "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
              "Cmd": ["sh"]}, "created": "1970-01-01T00:00:00Z",
              "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "busybox-static"}], "os": "linux",
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}}
    layer_desc = put(blob, "application/vnd.oci.image.layer.v1.tar+gzip")
    config_desc = put(json.dumps(config, separators=(",", ":")).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_desc, "layers": [layer_desc]}
    desc = put(json.dumps(manifest, indent=2).encode(), manifest["mediaType"])
    desc["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (dest / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [desc]}) + "\n")
    (dest / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')


main(sys.argv[1])
