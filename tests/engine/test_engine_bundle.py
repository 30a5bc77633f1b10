"""Bundles: a round trip keeps every bit; whatever is not exactly a bundle is refused."""

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from cardiogen.base import CardiogenError
from cardiogen.engine import default_bundle_path, find_bundle, read_bundle, write_bundle

FILES = ("model.safetensors", "model.json", "card.md")
DESCRIPTION = {
    "kind": "linear",
    "name": "tiny",
    "cardiogen_version": "0.1.0",
    "architecture": {"modes": 2},
    "label_map": "ukbb",
    "condition_columns": ["age"],
    "condition_units": ["years"],
    "condition_ranges": {"age": [18.0, 83.0]},
    "template_sha256": "0",
    "training_data": {"cohort": "none"},
    "licence": "Apache-2.0",
}
TENSORS = {"a": np.arange(12.0).reshape(3, 4), "b": np.array([0.1, -7.25])}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", DESCRIPTION, TENSORS, "# Card\n\ncafé\n")


def seal(folder, *, weights=None, change=None, describe=None):
    """Rewrite a bundle with hashes that fit: what an attacker, or a bug, would ship."""
    file = folder / "model.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
        content["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    if describe is not None:
        content["tensors"] = describe
    if change is not None:
        change(content)
    content["description_sha256"] = "0" * 64
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(text.replace("0" * 64, digest), encoding="utf-8")
    return folder


def refused(folder, code, message=""):
    with pytest.raises(CardiogenError, match=f"CG-{code} .*{message}") as caught:
        read_bundle(folder)
    assert caught.value.exit_code == 4


def test_bundle_round_trip(bundle):
    found = read_bundle(bundle)
    assert found.description.name == "tiny"
    assert found.description.tensors == {"a": [3, 4], "b": [2]}
    for name, values in TENSORS.items():
        assert found.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(found.tensors[name], values.astype(np.float32))
    assert set(FILES) <= {p.name for p in bundle.iterdir()}


def test_bundle_is_not_overwritten_unasked(bundle):
    before = {name: (bundle / name).read_bytes() for name in FILES}
    with pytest.raises(CardiogenError, match="CG-O01") as caught:
        write_bundle(bundle, DESCRIPTION, TENSORS, "other")
    assert caught.value.exit_code == 8
    assert {name: (bundle / name).read_bytes() for name in FILES} == before
    write_bundle(bundle, DESCRIPTION, {"a": np.ones(2)}, "other", overwrite=True)
    assert set(read_bundle(bundle).tensors) == {"a"}


def test_bundle_sealed_again_is_read(bundle):
    assert read_bundle(seal(bundle)).description.name == "tiny"


def test_linear_bundle_is_small_and_sound():
    path = find_bundle("linear")
    assert read_bundle(path).description.kind == "linear"
    assert sum((path / name).stat().st_size for name in FILES) < 5 << 20


def test_shipped_bundles_go_by_their_names(bundle, monkeypatch):
    path = find_bundle("deformation")
    assert read_bundle(path).description.kind == "deformation"
    assert sum((path / name).stat().st_size for name in FILES) < 8 << 20
    assert find_bundle(None) == find_bundle("default") == default_bundle_path() == path
    assert find_bundle("a" * 300) == Path("a" * 300)
    monkeypatch.chdir(bundle.parent)
    bundle.rename("deformation")
    assert read_bundle(find_bundle("deformation")).description.name == "tiny"


@pytest.mark.parametrize("name", FILES)
def test_bundle_single_byte_flips_are_refused(bundle, name):
    file = bundle / name
    raw = file.read_bytes()
    rng = np.random.default_rng(0)
    places = rng.permutation(len(raw))[:120]
    for place, bit in zip(places, rng.integers(8, size=len(places)), strict=True):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << bit
        file.write_bytes(bytes(flipped))
        refused(bundle, "M0[34567]")
    file.write_bytes(raw)
    read_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, -1])
def test_bundle_truncated_files_are_refused(bundle, name, keep):
    file = bundle / name
    file.write_bytes(file.read_bytes()[:keep])
    refused(bundle, "M0[37]")


@pytest.mark.parametrize("name", FILES)
def test_bundle_files_must_be_there(bundle, name):
    (bundle / name).unlink()
    refused(bundle, "M47", name)


@pytest.mark.parametrize(
    "suffix",
    [
        "pt",
        "pth",
        "ckpt",
        "pkl",
        "pickle",
        "joblib",
        "npy",
        "npz",
        "h5",
        "hdf5",
        "onnx",
        "pt2",
        "bin",
        "PT",
    ],
)
def test_bundle_unsafe_formats_are_never_opened(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    # A pipe that nobody writes to: opening it would block for ever.
    os.mkfifo(path)
    refused(path, "M01", "unsafe model format")


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "bz2", "xz", "7z"])
def test_bundle_archives_are_not_unpacked(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"PK")
    refused(path, "M02", "an archive")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_bundle_must_be_a_folder(tmp_path, bundle):
    refused(bundle / "model.safetensors", "M47", "found a file")
    refused(tmp_path / "none", "M47", "found nothing")
    refused("a" * 5000, "M47")
    refused("a\0b", "M47")


@pytest.mark.parametrize("name", FILES)
def test_bundle_links_are_refused(bundle, tmp_path, name):
    outside = tmp_path / "outside"
    shutil.move(bundle / name, outside)
    (bundle / name).symlink_to(outside)
    refused(bundle, "M04", "a link")
    (bundle / name).unlink()
    (bundle / name).symlink_to(bundle / name)  # a loop
    refused(bundle, "M(04|47)")
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    refused(bundle, "M47", "not a regular file")


def test_bundle_git_lfs_pointer(bundle):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 653336\n"
    (bundle / "model.safetensors").write_bytes(pointer)
    refused(bundle, "M03")
    refused(seal(bundle, weights=pointer), "M04")


def header(entries, data=b"", *, size=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(start, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'  # noqa: E501
WEIGHTS = {
    "nothing": b"",
    "header of 2^63": header(b"{}", size=2**63),
    "header of 200 MB": header(b"{}", size=200_000_000),
    "overlap": header({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, bytes(8)),
    "shape mismatch": header({"a": entry(0, 8, [3])}, bytes(8)),
    "hole": header({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)),
    "truncated": header({"a": entry(0, 8, [2])}, bytes(4)),
    "tail": header({"a": entry(0, 8, [2])}, bytes(9)),
    "overflow": header({"a": entry(0, 8, [2**40, 2**40])}, bytes(8)),
    "duplicate key": header(TWICE, bytes(8)),
    "no JSON": header(b"hello", bytes(8)),
    "unknown dtype": header({"a": entry(0, 8, [2], "X99")}, bytes(8)),
    "dtype that numpy lacks": header({"a": entry(0, 8, [4], "BF16")}, bytes(8)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_bundle_broken_weights_are_refused(bundle, name):
    describe = {"a": [4] if "numpy" in name else [2]}
    refused(seal(bundle, weights=WEIGHTS[name], describe=describe), "M0[47]")


def arrays(**changes):
    kept = {n: a.astype(np.float32) for n, a in TENSORS.items()} | changes
    return save({n: a for n, a in kept.items() if a is not None})


@pytest.mark.parametrize(
    "weights",
    [
        arrays(b=None),
        arrays(c=np.zeros(2, np.float32)),
        arrays(b=None, bb=np.array([0.1, -7.25], np.float32)),
        arrays(a=np.zeros((4, 3), np.float32)),
        arrays(b=np.array([0.1, -7.25])),
        arrays(b=np.array([1, 2], np.int32)),
        arrays(b=np.array([1, 2], np.float16)),
    ],
    ids=["missing", "extra", "renamed", "shape", "float64", "integer", "half"],
)
def test_bundle_tensors_must_be_those_described(bundle, weights):
    refused(seal(bundle, weights=weights), "M04", "tensor .* as model.json says")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bundle_weights_must_be_finite(bundle, value):
    weights = arrays(b=np.array([0.1, value], np.float32))
    refused(seal(bundle, weights=weights), "M05", "'b'")


def test_bundle_newer_schema(bundle):
    refused(seal(bundle, change=lambda c: c.update(schema_version=2)), "M06", "at most 1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema_version", 0),
        ("schema_version", "1"),
        ("schema_version", True),
        ("kind", "os.system"),
        ("name", 5),
        ("tensors", {"a": "3x4"}),
        ("condition_columns", "age"),
        ("_target_", "os.system"),
        ("licence", None),
    ],
)
def test_bundle_description_must_fit_the_schema(bundle, key, value):
    refused(seal(bundle, change=lambda c: c.update({key: value})), "M07", key)


def test_bundle_description_must_be_complete(bundle):
    refused(seal(bundle, change=lambda c: c.pop("licence")), "M07", "licence: field required")
    (bundle / "model.json").write_text("[]")
    refused(bundle, "M07", "valid dictionary")
    (bundle / "model.json").write_text('{"kind": "linear", "kind": "linear"}')
    refused(bundle, "M07", "twice")
    (bundle / "model.json").write_bytes(b" " * ((1 << 20) + 1))
    refused(bundle, "M07", "at most 1048576 bytes")


def test_bundle_description_of_another_model(bundle, tmp_path):
    other = write_bundle(tmp_path / "other", DESCRIPTION, {"a": np.ones((3, 4))}, "# Card\n")
    shutil.copy(other / "model.json", bundle / "model.json")
    refused(bundle, "M03")
