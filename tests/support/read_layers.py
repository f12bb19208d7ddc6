"""Reads every layer of an OCI layout as a stream, checks sizes, digests and diff ids, prints the members' names as JSON."""
import gzip, hashlib, io, json, pathlib, sys, tarfile

layout = pathlib.Path(sys.argv[1])


def blob(descriptor):
    data = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
    assert len(data) == descriptor["size"], descriptor
    assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"], descriptor
    return data


def members(data):
    names = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        for member in tar:
            names.append(member.name)
            if member.isreg():
                assert len(tar.extractfile(member).read()) == member.size, member.name
    return names


index = json.loads((layout / "index.json").read_text())
manifest = json.loads(blob(index["manifests"][0]))
diff_ids = json.loads(blob(manifest["config"]))["rootfs"]["diff_ids"]
assert len(diff_ids) == len(manifest["layers"]), manifest
layers = []
for descriptor, diff_id in zip(manifest["layers"], diff_ids):
    plain = gzip.decompress(blob(descriptor))
    assert "sha256:" + hashlib.sha256(plain).hexdigest() == diff_id, diff_id
    with tarfile.open(fileobj=io.BytesIO(blob(descriptor)), mode="r|gz") as tar:
        assert [member.name for member in tar] == members(plain)
    layers.append(members(plain))
print(json.dumps(layers))
