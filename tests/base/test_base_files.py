"""Outputs are whole or absent, whatever happens in between; inputs are regular and bounded."""

import json
import os
import socket

import pytest

from cardiogen.base import (
    CardiogenError,
    Exit,
    atomic_folder,
    atomic_write,
    read_bounded,
    sha256_file,
    write_json,
)
from cardiogen.base.files import MARKER

MARK = b"Made by cardiogen as a whole; --overwrite may replace this folder as a whole.\n"


def made(folder):
    """Make a folder as cardiogen does, with one old file."""
    with atomic_folder(folder) as new:
        (new / "a").write_bytes(b"old")


class Stop(BaseException):
    """Stands for whatever may end a program, caught by no ``except Exception``."""


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
            for p in folder.rglob("*")}  # fmt: skip


def test_write_appears_whole_and_alone(tmp_path):
    with atomic_write(tmp_path / "a.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"new")
        assert not (tmp_path / "a.nii.gz").exists()
    assert tree(tmp_path) == {"a.nii.gz": b"new"}


@pytest.mark.parametrize("reason", [KeyboardInterrupt, SystemExit, Stop, ValueError])
@pytest.mark.parametrize("old", [None, b"old"])
def test_interrupted_write_changes_nothing(tmp_path, reason, old):
    if old:
        (tmp_path / "a").write_bytes(old)
    before = tree(tmp_path)

    def stop_half_way():
        with atomic_write(tmp_path / "a", overwrite=True) as new:
            new.write_bytes(b"half of it")
            raise reason("half")

    with pytest.raises(reason, match="half"):
        stop_half_way()
    assert tree(tmp_path) == before


def test_existing_file_is_kept_without_overwrite(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(CardiogenError, match=r"CG-O01 .*--overwrite") as caught:  # noqa: SIM117
        with atomic_write(tmp_path / "a"):
            raise AssertionError("the body must not run")
    assert caught.value.exit_code == Exit.EXISTS
    assert tree(tmp_path) == {"a": b"old"}


def test_overwrite_replaces(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with atomic_write(tmp_path / "a", overwrite=True) as new:
        new.write_bytes(b"new")
    assert tree(tmp_path) == {"a": b"new"}


def fail(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_at_each_step_leaves_the_old_file(tmp_path, monkeypatch, step):
    (tmp_path / "a").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(CardiogenError, match=r"CG-R01 .*No space left") as caught:  # noqa: SIM117
            with atomic_write(tmp_path / "a", overwrite=True) as new:
                new.write_bytes(b"new")
    assert caught.value.exit_code == Exit.RESOURCES
    assert tree(tmp_path) == {"a": b"old"}


def test_writing_into_a_missing_folder_is_told(tmp_path):
    with pytest.raises(CardiogenError, match="CG-R01"):  # noqa: SIM117
        with atomic_write(tmp_path / "none" / "a") as new:
            new.write_bytes(b"new")


def test_folder_appears_whole_and_alone(tmp_path):
    with atomic_folder(tmp_path / "deep" / "out") as new:
        (new / "sub").mkdir()
        (new / "sub" / "a").write_bytes(b"1")
        assert not (tmp_path / "deep" / "out").exists()
    assert tree(tmp_path) == {"deep": None, "deep/out": None, "deep/out/sub": None,
                              "deep/out/sub/a": b"1",
                              f"deep/out/{MARKER}": MARK}  # fmt: skip


@pytest.mark.parametrize("reason", [KeyboardInterrupt, Stop, ValueError])
@pytest.mark.parametrize("old", [False, True])
def test_interrupted_folder_changes_nothing(tmp_path, reason, old):
    if old:
        made(tmp_path / "out")
    before = tree(tmp_path)

    def stop_half_way():
        with atomic_folder(tmp_path / "out", overwrite=True) as new:
            (new / "a").write_bytes(b"half")
            raise reason("half")

    with pytest.raises(reason, match="half"):
        stop_half_way()
    assert tree(tmp_path) == before


def test_existing_folder_is_kept_without_overwrite(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"old")
    with pytest.raises(CardiogenError, match="CG-O01"):  # noqa: SIM117
        with atomic_folder(tmp_path / "out"):
            raise AssertionError("the body must not run")
    assert tree(tmp_path) == {"out": None, "out/a": b"old"}


def test_folder_overwrite_leaves_nothing_of_the_old_one(tmp_path):
    made(tmp_path / "out")
    with atomic_folder(tmp_path / "out", overwrite=True) as new:
        (new / "b").write_bytes(b"new")
    assert tree(tmp_path) == {"out": None, "out/b": b"new", f"out/{MARKER}": MARK}


def test_failed_folder_swap_restores_the_old_folder(tmp_path, monkeypatch):
    made(tmp_path / "out")
    replace, calls = os.replace, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            fail()
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", second_fails)
        with pytest.raises(CardiogenError, match="CG-R01"):  # noqa: SIM117
            with atomic_folder(tmp_path / "out", overwrite=True) as new:
                (new / "b").write_bytes(b"new")
    assert tree(tmp_path) == {"out": None, "out/a": b"old", f"out/{MARKER}": MARK}


@pytest.mark.parametrize("kind", ["folder", "file", "link to ours"])
def test_overwrite_spares_what_cardiogen_did_not_make(tmp_path, kind):
    if kind == "folder":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_bytes(b"years")
    elif kind == "file":
        (tmp_path / "out").write_bytes(b"years")
    else:
        made(tmp_path / "ours")
        (tmp_path / "out").symlink_to(tmp_path / "ours")
    before = tree(tmp_path)
    with pytest.raises(CardiogenError, match=r"CG-O03 .*did not make") as caught:  # noqa: SIM117
        with atomic_folder(tmp_path / "out", overwrite=True):
            raise AssertionError("the body must not run")
    assert caught.value.exit_code == Exit.EXISTS
    assert tree(tmp_path) == before


def test_json_is_strict_and_atomic(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"é": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert set(tree(tmp_path)) == {"a.json"}


def test_bounded_reading_up_to_the_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", limit=5) == b"12345"
    with pytest.raises(CardiogenError, match=r"CG-R02 .*5 bytes.*at most 4") as caught:
        read_bounded(tmp_path / "a", limit=4)
    assert caught.value.exit_code == Exit.RESOURCES


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


def make_loop(path):
    path.symlink_to(path)


def make_dangling(path):
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda p: p.mkdir(), "a folder"), (make_fifo, "not a regular file"),
     (make_socket, "not a regular file"), (make_loop, "symbolic links"),
     (make_dangling, "No such file"), (lambda p: None, "No such file")],
)  # fmt: skip
@pytest.mark.parametrize("family", ["N", "C"])
def test_only_regular_files_are_opened(tmp_path, monkeypatch, make, words, family):
    # A short relative name: sockets have a limit of about 100 characters.
    monkeypatch.chdir(tmp_path)
    path = tmp_path.__class__("x")
    make(path)
    with pytest.raises(CardiogenError, match=f"CG-{family}47 x: .*{words}"):
        read_bounded(path, limit=10, family=family)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_missing_permission_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "a").chmod(0)
    with pytest.raises(CardiogenError, match=r"CG-N47 .*Permission denied"):
        read_bounded(tmp_path / "a", limit=10)


def test_links_to_regular_files_are_followed(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_bounded(tmp_path / "b", limit=10) == b"1"


def test_sha256_of_known_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
