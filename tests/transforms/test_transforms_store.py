"""Saved transforms come back bit by bit, and damaged files say so."""

import json

import pytest
import torch
from safetensors.torch import save_file

from cardiogen.base import CardiogenError
from cardiogen.transforms import (
    FFD,
    SVF,
    SVFFD,
    Affine,
    Composition,
    Displacement,
    Rigid,
    TemporalSVF,
    load_transform,
    save_transform,
)


def noisy(transform, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(transform.params.shape, generator=generator, dtype=dtype)
    return transform.with_parameters(noise * 0.1)


def everything(grid):
    control = {"control_spacing": (9.0, 5.0, 4.5)}
    return {
        "rigid": noisy(Rigid.identity(grid, center=(1.0, 2.0, 1 / 3))),
        "affine": noisy(Affine.identity(grid, batch=2), torch.float64),
        "displacement": noisy(Displacement.identity(grid, in_plane=True)),
        "ffd": noisy(FFD.identity(grid, **control)),
        "svf": noisy(SVF.identity(grid, steps=5)),
        "svffd": noisy(SVFFD.identity(grid, control_spacing=5.0, in_plane=True, steps=6)),
        "temporal": noisy(TemporalSVF.identity(grid, harmonics=3, **control, steps=4)),
        "temporal_dense": noisy(TemporalSVF.identity(grid, harmonics=1, in_plane=True)),
        "composition": Composition(
            [
                noisy(Affine.identity(grid)),
                Composition([noisy(SVF.identity(grid)), noisy(Rigid.identity(grid))]),
            ],
        ),
    }


NAMES = ["rigid", "affine", "displacement", "ffd", "svf", "svffd", "temporal", "temporal_dense",
         "composition"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_saved_is_loaded_bit_by_bit(tmp_path, grid, name):
    made = everything(grid)[name]
    path = tmp_path / "t.safetensors"
    save_transform(path, made)
    found = load_transform(path)
    assert type(found) is type(made)
    assert found.grid.shape == grid.shape
    assert (found.grid.affine == grid.affine).all()
    before, after = made.state_dict(), found.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    when = ([0.3],) if name.startswith("temporal") else ()
    assert torch.equal(made.displacement(*when), found.displacement(*when))
    assert not list(found.parameters())
    save_transform(tmp_path / "again.safetensors", found)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_nothing_is_overwritten_unasked_and_nothing_broken_is_written(tmp_path, grid):
    path = tmp_path / "t.safetensors"
    save_transform(path, SVF.identity(grid))
    with pytest.raises(CardiogenError, match="CG-O01"):
        save_transform(path, SVF.identity(grid))
    save_transform(path, Affine.identity(grid), overwrite=True)
    assert isinstance(load_transform(path), Affine)
    endless = SVF(grid, torch.full((1, 3, 7, 11, 13), float("inf")))
    with pytest.raises(ValueError, match="must be finite"):
        save_transform(tmp_path / "n.safetensors", endless)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_transform(tmp_path / "t.pt", SVF.identity(grid))
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def rewritten(path, change, tensors=None):
    """Save the file with a changed description."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["cardiogen_transform"])
    change(told)
    tensors = {"params": torch.zeros(1, 3, 7, 11, 13)} if tensors is None else tensors
    save_file(tensors, path, metadata={"cardiogen_transform": json.dumps(told)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update(schema_version=2), "CG-S72.*version 2"),
        (lambda t: t.update(extra=1), "CG-S70.*extra"),
        (lambda t: t["transform"].update(kind="spline"), "CG-S70.*kind"),
        (lambda t: t["transform"].update(shape=[7, 11]), "CG-S70.*shape"),
        (lambda t: t["transform"].update(shape=[7, 11, 12]), "CG-S71.*params must be"),
        (lambda t: t["transform"].update(shape=[7, 11, 0]), "CG-S71.*positive"),
        (lambda t: t["transform"].update(kind="ffd"), "CG-S71.*without control_spacing"),
        (lambda t: t["transform"].update(kind="composition"), "CG-S71.*at least one"),
        (lambda t: t["transform"].update(affine=[[0.0] * 4] * 4), "CG-S71.*invertible"),
        (lambda t: t["transform"].update(affine=[[0.0]] * 4), "CG-S71"),
        (lambda t: t["transform"].update(affine=[[0.0]] * 3 + [[]]), "CG-S71"),
        (lambda t: t["transform"].update(steps=-1), "CG-S71.*steps must be"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, grid, change, told):
    path = tmp_path / "t.safetensors"
    save_transform(path, SVF.identity(grid))
    rewritten(path, change)
    with pytest.raises(CardiogenError, match=told):
        load_transform(path)


def test_tensors_that_do_not_fit_are_refused(tmp_path, grid):
    path = tmp_path / "t.safetensors"
    good = torch.zeros(1, 3, 7, 11, 13)
    broken = torch.full_like(good, float("nan"))
    for tensors in ({"other": good}, {"params": good, "more": good + 1}, {"params": broken},
                    {"params": good.long()}):  # fmt: skip
        save_transform(path, SVF.identity(grid), overwrite=True)
        rewritten(path, lambda told: None, tensors)
        with pytest.raises(CardiogenError, match="CG-S71"):
            load_transform(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CardiogenError, match=r"CG-S70.*no safetensors header"):
        load_transform(path)
    path.write_bytes((9999).to_bytes(8, "little") + b"{}")
    with pytest.raises(CardiogenError, match=r"CG-S70.*no safetensors header"):
        load_transform(path)
    save_file({"params": torch.zeros(3)}, path)
    with pytest.raises(CardiogenError, match=r"CG-S70.*no description"):
        load_transform(path)
    with pytest.raises(CardiogenError, match="CG-S47"):
        load_transform(tmp_path / "absent.safetensors")
    save_file({"params": torch.zeros(3000)}, path)
    with pytest.raises(CardiogenError, match="CG-R02"):
        load_transform(path, limit=100)
