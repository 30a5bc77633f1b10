"""One place chooses back-ends, one file reads between voxels, ops imports torch alone."""

import ast
import re
import sys
from pathlib import Path

import pytest
import torch

import cardiogen.ops as ops
from cardiogen.base import CardiogenError
from cardiogen.ops import active_backend, check_shape, use_backend
from cardiogen.ops.kernels import choose

ROOT = Path(ops.__file__).parents[2]


def test_backend_is_chosen_by_block_then_environment(monkeypatch):
    monkeypatch.delenv("CARDIOGEN_KERNELS", raising=False)
    assert active_backend() == "auto"
    monkeypatch.setenv("CARDIOGEN_KERNELS", "reference")
    assert active_backend() == "reference"
    with use_backend("auto"):
        assert active_backend() == "auto"
        with pytest.raises(RuntimeError, match="inner"), use_backend("reference"):
            raise RuntimeError("inner")
        assert active_backend() == "auto"
    assert active_backend() == "reference"


def test_unknown_backends_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="name must be one of reference, auto, got 'cuda'"):
        use_backend("cuda").__enter__()
    monkeypatch.setenv("CARDIOGEN_KERNELS", "fast")
    with pytest.raises(CardiogenError, match="CG-U12 CARDIOGEN_KERNELS: found 'fast'"):
        ops.warp(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2))


def test_tensors_on_two_devices_are_refused():
    with pytest.raises(ValueError, match=r"tensors must be on one device, got \['cpu', 'meta'\]"):
        choose(len, torch.zeros(1), torch.zeros(1, device="meta"))


def test_only_one_file_reads_between_voxels():
    allowed = {ROOT / "cardiogen/ops/sample.py"}
    caller = re.compile(
        r"\bgrid_sample\b|\bfunctional\.interpolate\b|\bF\.interpolate\b|align_corners="
    )
    for package in ("cardiogen", "augment", "registration"):
        for path in (ROOT / package).rglob("*.py"):
            if path not in allowed and "kernels" not in path.parts:
                assert not caller.search(path.read_text()), f"{path} samples images by itself"


def test_ops_imports_torch_and_base_alone():
    known = {"torch", "cardiogen", *sys.stdlib_module_names}
    kernels = {"numba", "llvmlite", "numpy", "triton"}
    for path in (ROOT / "cardiogen/ops").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                parts = name.split(".")
                in_kernels = "kernels" in path.parts and parts[0] in kernels
                assert parts[0] in known or in_kernels, f"{path} imports {name}"
                assert parts[0] != "cardiogen" or parts[1] in ("base", "ops"), f"{path}: {name}"


def test_every_public_name_is_documented():
    assert sorted(ops.__all__) == sorted(set(ops.__all__))
    for name in ops.__all__:
        thing = getattr(ops, name)
        assert name == "Padding" or thing.__doc__, name


def test_check_shape_names_argument_wanted_and_got():
    assert check_shape(torch.zeros(2, 3, 4, 5), "B 3 ...", "field") == {"B": 2, "3": 3}
    assert check_shape(torch.zeros(4, 4), "N N", "matrix") == {"N": 4}
    with pytest.raises(
        ValueError,
        match=r"displacement must have shape \(B=4, 3, D, H, W\), got \(2, 3, 8, 16, 16\)",
    ):
        check_shape(torch.zeros(2, 3, 8, 16, 16), "B 3 D H W", "displacement", B=4)
    with pytest.raises(ValueError, match=r"x must have shape \(B, C, \.\.\.\), got \(3,\)"):
        check_shape(torch.zeros(3), "B C ...", "x")
    with pytest.raises(ValueError, match=r"matrix must have shape \(N, N\), got \(3, 4\)"):
        check_shape(torch.zeros(3, 4), "N N", "matrix")
