#!/usr/bin/env python3
"""The benchmark: prints the table of budgets, measured on this machine.

    bench/run.py target/release/builder [--only tiny,steps50] [--repeat 3] [--peer] [--limit 2]

Every run ends with the image pushed to a registry on loopback (Debian's docker-registry). The bases are the busybox of
testdata and, for the cases that need one, a Debian made with mmdebstrap. With --peer the BuildKit in Debian's docker.io
builds the same contexts in the same run, and the ratio is printed. With --limit N the exit status is 3 if a build fails,
or if a case takes more than N times its budget in three measurements: of the share of the peer's time with --peer, of the
seconds without. Seconds move from machine to machine; ratios taken in one run do not.

Cases that only --only names, because they take minutes and gigabytes:

    many      500 000 files of a few bytes in 2 000 directories, none of them changed since the build before
    ignored   the context of `tiny` with 20 000 files and a sparse one of 10 GB in an ignored directory: costs as `tiny`
    big       one file of 3 GB that does not shrink: no budget, the peer and the disk tell what it may take

Every build from nothing has a state directory of its own, and all are removed at the end: where many files were deleted
in the last minutes, ext4 takes long to find an inode for a new one. For the same reason each of them, the registry's and
the peer's too, is kept apart on the disk from what others delete there."""
import argparse, fcntl, json, os, pathlib, random, re, resource, shutil, signal, socket, struct, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent
# Seconds that BuildKit took where the budgets were set, and the share of them that is ours; without the former, seconds.
BUDGETS = {
    "tiny cold": (0.285, 1 / 4), "tiny unchanged": (0.066, 1 / 6), "tiny edited": (0.178, 1 / 5),
    "steps50 cold": (4.08, 1 / 8), "steps50 unchanged": (0.189, 1 / 10),
    "tree cold": (8.7, 1 / 4), "tree unchanged": (0.575, 1 / 8), "tree edited": (4.9, 1 / 5),
    "bigrun cold": (9.4, 1 / 3), "parallel8 cold": (1.58, 1.15 / 1.58),
    "many cold": (None, None), "many unchanged": (None, 1.5), "big cold": (None, None),
    "ignored cold": (0.285, 1 / 4), "ignored unchanged": (0.066, 1 / 6),
}
MEMORY_MB, START_SECONDS = 256, 0.003
# Exit status if something is over its limit in all measurements, or does not build; what the benchmark needs and lacks has another.
FAILED, ATTEMPTS = 3, 3


def write(path, data, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    os.chmod(path, mode)


def words(rng, size):
    vocabulary = [bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 9))) for _ in range(800)]
    out = bytearray()
    while len(out) < size:
        out += rng.choice(vocabulary) + b" "
    return bytes(out[:size])


def contexts(dest, registry):
    """Writes the usual contexts; the same bytes every time."""
    rng = random.Random(7)
    base = f"FROM {registry}/busybox:latest"
    debian = f"FROM {registry}/debian:bookworm\n"
    write(f"{dest}/tiny/Dockerfile", base + '\nCOPY hello /hello\nRUN cat /hello > /out\nCMD ["cat","/out"]\n')
    write(f"{dest}/tiny/hello", "hi\n")
    write(f"{dest}/steps50/Dockerfile", base + "\n" + "".join(f"RUN echo {i} > /f{i}\n" for i in range(50)))
    write(f"{dest}/tree/Dockerfile", debian + "WORKDIR /app\nCOPY . .\nRUN find . -type f | wc -l > /count\n")
    pool = words(rng, 4_000_000)
    for i in range(20000):
        size = min(200_000, int(rng.lognormvariate(8.4, 1.2)))
        at = rng.randrange(0, len(pool) - size)
        write(f"{dest}/tree/src/p{i % 97}/q{i % 13}/f{i}.txt", pool[at:at + size])
    write(f"{dest}/bigrun/Dockerfile", debian + "COPY gen.sh seed /\nRUN sh /gen.sh\n")
    write(f"{dest}/bigrun/gen.sh", "set -e\nmkdir -p /data\nfor i in $(seq 1 60); do { head -c 5000000 /dev/urandom; cat /seed; } > /data/$i; done\n")
    write(f"{dest}/bigrun/seed", words(rng, 5_000_000))
    stages = "".join(f"{base} AS s{i}\nRUN sleep 1 && echo {i} > /o{i}\n" for i in range(8))
    write(f"{dest}/parallel8/Dockerfile", stages + base + "\n" + "".join(f"COPY --from=s{i} /o{i} /o{i}\n" for i in range(8)))


def many(dest):
    write(f"{dest}/Dockerfile", "FROM scratch\nCOPY . /\n")
    for i in range(2000):
        for j in range(250):
            write(f"{dest}/s/d{i % 50}/e{i // 50}/f{j}", f"{i} {j}\n")


def ignored(dest, registry):
    write(f"{dest}/Dockerfile", f'FROM {registry}/busybox:latest\nCOPY . /\nRUN cat /hello > /out\nCMD ["cat","/out"]\n')
    write(f"{dest}/hello", "hi\n")
    write(f"{dest}/.dockerignore", "node_modules\n")
    for i in range(20000):
        write(f"{dest}/node_modules/p{i % 200}/f{i}", "x")
    with open(f"{dest}/node_modules/sparse", "wb") as f:
        f.truncate(10 << 30)


def big(dest):
    write(f"{dest}/Dockerfile", "FROM scratch\nCOPY big /\n")
    rng = random.Random(7)
    with open(f"{dest}/big", "wb") as f:
        for _ in range(300):
            f.write(rng.randbytes(10_000_000))


def keep_apart(directory):
    """Sets the attribute T of chattr(1), where there is such a thing: what is made in the directory goes elsewhere on the disk."""
    get_flags, set_flags, topdir = 0x80086601, 0x40086602, 0x20000
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = struct.unpack("i", fcntl.ioctl(handle, get_flags, bytes(4)))[0]
        fcntl.ioctl(handle, set_flags, struct.pack("i", flags | topdir))
    except OSError:
        pass
    finally:
        os.close(handle)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def need(program, package):
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return found or sys.exit(f"this benchmark needs `{program}`: apt-get install {package}")


class Registry:
    def __init__(self, place):
        self.address = f"127.0.0.1:{free_port()}"
        config = place / "registry.yml"
        config.write_text(f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {place}/registry\nhttp:\n  addr: {self.address}\n")
        self.process = subprocess.Popen([need("docker-registry", "docker-registry"), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(self.address.split(":"), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        sys.exit("docker-registry does not start")

    def fill(self, source, name):
        subprocess.run([need("skopeo", "skopeo"), "copy", "--quiet", "--dest-tls-verify=false", source, f"docker://{self.address}/{name}"], check=True)


def debian_layout(place):
    """A Debian base from the machine's own package sources, as an OCI layout."""
    root = place / "debian.tar"
    sources = [p for p in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list") if os.path.exists(p)][:1]
    subprocess.run([need("mmdebstrap", "mmdebstrap"), "--quiet", "--variant=essential", "--format=tar", "bookworm", str(root), *sources], check=True)
    layout = place / "debian"
    umoci = need("umoci", "umoci")
    subprocess.run([umoci, "init", "--layout", layout], check=True)
    subprocess.run([umoci, "new", "--image", f"{layout}:latest"], check=True)
    subprocess.run([umoci, "raw", "add-layer", "--image", f"{layout}:latest", root], check=True)
    return layout


class Ours:
    name = "build"

    def __init__(self, program, place):
        self.program, self.place, self.turns = os.path.abspath(program), place, 0

    def reset(self):
        self.turns += 1

    def build(self, context, tag):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.place), "BUILD_ROOT": str(self.place / f"root-{self.turns}")}
        return timed([self.program, "build", "--progress=quiet", "--push", "-t", tag, str(context)], env, FAILED)


class Dockerd:
    """BuildKit as in Debian's docker.io, in a daemon of its own."""
    name = "BuildKit"

    def __init__(self, place):
        self.place, self.socket, self.process, self.turns = place, place / "docker.sock", None, 0

    def reset(self):
        self.stop()
        self.turns += 1
        self.process = subprocess.Popen(
            [need("dockerd", "docker.io"), "--data-root", str(self.place / f"docker-{self.turns}"), "--exec-root", str(self.place / "exec"), "-H", f"unix://{self.socket}",
             "--pidfile", str(self.place / "docker.pid"), "--iptables=false", "--bridge=none"], stdout=open(self.place / "dockerd.log", "a"), stderr=subprocess.STDOUT)
        for _ in range(300):
            if subprocess.run(["/usr/bin/docker", "-H", f"unix://{self.socket}", "info"], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit(f"dockerd does not start, see {self.place}/dockerd.log")

    def build(self, context, tag):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.place), "DOCKER_BUILDKIT": "1", "DOCKER_HOST": f"unix://{self.socket}"}
        seconds, _ = timed(["/usr/bin/docker", "build", "-q", "--network", "host", "-t", tag, str(context)], env)
        pushed, _ = timed(["/usr/bin/docker", "push", "-q", tag], env)
        return seconds + pushed, 0

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


def timed(command, env, status_of_failure=1):
    """Wall seconds and peak memory in MB of a command that must succeed."""
    start = time.monotonic()
    child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    if child.returncode:
        print(f"{' '.join(command)} failed:\n{output.decode(errors='replace')}", file=sys.stderr)
        sys.exit(status_of_failure)
    return seconds, usage.ru_maxrss / 1024


def edit(case, context, turn):
    if case == "tiny":
        write(f"{context}/hello", f"hi {turn}\n")
    else:
        write(f"{context}/src/p1/q1/edited.txt", f"edited {turn}\n")


def measure(tool, case, context, registry, repeat, attempt):
    """Best of `repeat` for: from nothing, nothing changed, one file edited. Each in a repository that has nothing yet."""
    results, memory = {}, 0
    has_edit = f"{case} edited" in BUDGETS
    for turn in range(repeat):
        tool.reset()
        tag = f"{registry.address}/{tool.name.lower()}-{case}-{attempt}-{turn}:latest"
        rounds = ["cold"] + (["unchanged"] if f"{case} unchanged" in BUDGETS else []) + (["edited"] if has_edit else [])
        for kind in rounds:
            # What was done before left things to be written; that is not this build's work.
            os.sync()
            if kind == "edited":
                edit(case, context, f"{tool.name} {turn} {time.time_ns()}")
            seconds, peak = tool.build(context, tag)
            results[f"{case} {kind}"] = min(seconds, results.get(f"{case} {kind}", 1e9))
            memory = max(memory, peak)
    return results, memory


def report(case, measured, limit):
    """Prints what was measured, ours and perhaps the peer's; gives what is over `limit` times its budget."""
    (results, memory), peer = measured[0], measured[1][0] if len(measured) > 1 else None
    over = []
    for work, seconds in results.items():
        theirs, share = BUDGETS[work]
        budget = share if theirs is None else theirs * share
        then, ours = ("-" if figure is None else f"{figure:.3f}s" for figure in (theirs, budget))
        line = f"{work:20} {then:>13} {ours:>8} {seconds:7.3f}s {memory:5.0f}"
        if peer:
            line += f"  {peer[work]:11.3f}s  1/{peer[work] / seconds:.1f}"
        print(line, flush=True)
        if peer and theirs:
            budget = peer[work] * share
        if limit and budget and seconds > budget * limit:
            over.append(f"{work}: {seconds:.3f} s, budget {budget:.3f} s")
    if memory > MEMORY_MB:
        over.append(f"{case}: {memory:.0f} MB, budget {MEMORY_MB} MB")
    return over


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--only", default="tiny,steps50,tree,bigrun,parallel8")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="measure Debian's BuildKit too")
    parser.add_argument("--limit", type=float, help="fail if a case takes more than this many times its budget")
    args = parser.parse_args()
    cases = args.only.split(",")
    place = pathlib.Path(tempfile.mkdtemp(prefix="build-bench-"))
    keep_apart(place)
    registry, tools = Registry(place), [Ours(args.program, place)] + ([Dockerd(place)] if args.peer else [])
    late = []
    # Whoever stops it leaves no daemon behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        registry.fill(f"oci:{REPO}/testdata/images/busybox:latest", "busybox:latest")
        if {"tree", "bigrun"} & set(cases):
            registry.fill(f"oci:{debian_layout(place)}:latest", "debian:bookworm")
        contexts(place / "contexts", registry.address)
        for case, make in {"many": many, "ignored": lambda dest: ignored(dest, registry.address), "big": big}.items():
            if case in cases:
                make(place / "contexts" / case)
        print(f"{'work':20} {'BuildKit then':>13} {'budget':>8} {'build':>8} {'MB':>5}" + ("  BuildKit now  ratio" if args.peer else ""))
        for case in cases:
            for attempt in range(ATTEMPTS):
                measured = [measure(tool, case, place / "contexts" / case, registry, args.repeat, attempt) for tool in tools]
                over = report(case, measured, args.limit)
                if not (over and args.limit):
                    break
                # Whoever shares the machine may have been busy.
                if attempt + 1 < ATTEMPTS:
                    print(f"{case}: over budget, measured once more", flush=True)
            late += over
        start = min(timed([args.program, "--version"], {})[0] for _ in range(20))
        print(f"{'--version':20} {'':13} {START_SECONDS:7.3f}s {start:7.3f}s")
        if args.limit and start > START_SECONDS * args.limit:
            late.append(f"--version: {start:.4f} s, budget {START_SECONDS} s")
    finally:
        registry.process.terminate()
        for tool in tools:
            if isinstance(tool, Dockerd):
                tool.stop()
        shutil.rmtree(place, ignore_errors=True)
        # Also if something else has gone wrong after it.
        for line in late:
            print("over budget:", line, flush=True)
        if args.limit and late:
            sys.exit(FAILED)


if __name__ == "__main__":
    main()
