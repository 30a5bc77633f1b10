"""Growing tables, tables of latents and the mesh store: whole after any interruption."""

import json

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.export import cohort_tables, mesh_store
from cardiogen.export.cohort_tables import JOURNAL, CohortTables
from cardiogen.export.latents import latent_row, read_latents, write_latents
from cardiogen.export.marks import Marks
from cardiogen.export.mesh_store import SHARD, MeshStore, packed
from cardiogen.population.template import template_topology

COLUMNS = {"a.csv": ["id", "x"], "b.csv": ["id", "text"]}
REQUEST = {"seed": 3, "formats": ("csv",)}
SYNTHETIC = Marks(synthetic=True)


def add(tables, first, last):
    for k in range(first, last):
        tables.append({"a.csv": [f"h{k}", k / 7], "b.csv": [f"h{k}", f"ä, {k}"]})


def texts(folder):
    return {name: (folder / name).read_bytes() for name in COLUMNS}


def whole(folder, count):
    folder.mkdir()
    tables = CohortTables.begin(folder, COLUMNS, REQUEST, count)
    add(tables, 0, count)
    tables.commit()
    return texts(folder)


def test_tables_taken_up_after_a_crash_are_those_of_one_run(tmp_path):
    wanted = whole(tmp_path / "one", 9)
    folder = tmp_path / "torn"
    folder.mkdir()
    tables = CohortTables.begin(folder, COLUMNS, REQUEST, 9)
    add(tables, 0, 4)
    tables.commit()
    # Rows behind the journal, the last one torn in the middle of a letter, and only in one table.
    add(tables, 4, 6)
    with (folder / "b.csv").open("ab") as stream:
        stream.write(b'h6,"\xc3')
    again = CohortTables.resume(folder, COLUMNS, REQUEST, 9)
    assert again.done == 4
    add(again, 4, 9)
    again.commit()
    assert texts(folder) == wanted


def test_a_row_that_one_table_lacks_does_not_count(tmp_path, monkeypatch):
    wanted = whole(tmp_path / "one", 3)
    folder = tmp_path / "two"
    folder.mkdir()
    tables = CohortTables.begin(folder, COLUMNS, REQUEST, 3)
    add(tables, 0, 2)
    (folder / "b.csv").rename(folder / "kept")
    (folder / "b.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b\.csv"):
        add(tables, 2, 3)
    (folder / "b.csv").rmdir()
    (folder / "kept").rename(folder / "b.csv")
    tables.commit()
    again = CohortTables.resume(folder, COLUMNS, REQUEST, 3)
    assert again.done == 2
    add(again, 2, 3)
    assert texts(folder) == wanted


def test_journal_tells_request_and_progress(tmp_path):
    whole(tmp_path / "one", 2)
    journal = json.loads((tmp_path / "one" / JOURNAL).read_text())
    assert (journal["done"], journal["wanted"]) == (2, 2)
    assert journal["request"] == {"seed": 3, "formats": ["csv"]}
    assert journal["bytes"] == {n: len(t) for n, t in texts(tmp_path / "one").items()}


def test_other_requests_and_folders_are_refused(tmp_path):
    folder = tmp_path / "one"
    whole(folder, 2)

    def resume(request=REQUEST, place=folder):
        CohortTables.resume(place, COLUMNS, request, 2)

    with pytest.raises(CardiogenError, match=r"CG-O05 .*seed 3, not 4"):
        resume(REQUEST | {"seed": 4})
    with pytest.raises(CardiogenError, match=r"CG-O05 .*frames None, not 25"):
        resume(REQUEST | {"frames": 25})
    with pytest.raises(CardiogenError, match=r"CG-O05 .*no cohort"):
        resume(place=tmp_path)
    (folder / "a.csv").write_text("id,x\n")
    with pytest.raises(CardiogenError, match=r"CG-O05 .*a\.csv shorter"):
        resume()
    (folder / JOURNAL).write_text('{"request": []}')
    with pytest.raises(CardiogenError, match=r"CG-C36 .*the fields request"):
        resume()


def test_rows_must_be_of_every_table(tmp_path):
    tables = CohortTables.begin(tmp_path, COLUMNS, REQUEST, 1)
    with pytest.raises(ValueError, match="rows must be of"):
        tables.append({"a.csv": ["h", 1]})
    with pytest.raises(ValueError, match="must have 2 cells, got 1"):
        tables.append({"a.csv": ["h"], "b.csv": ["h", "t"]})
    assert tables.done == 0
    assert cohort_tables.JOURNAL == "cohort.json"


def test_latents_come_back_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(2)
    latents = [tuple(10.0 ** rng.integers(-20, 20, 5) * rng.normal(size=5)) for _ in range(7)]
    subjects = [Factors(age=50 + k / 3, sex="F") for k in range(7)]
    marks = [Marks(synthetic=True, extrapolated=k == 2) for k in range(7)]
    path = write_latents(tmp_path / "z.csv", [
        latent_row(f"=h{k}", f, z, sha256="abc", marks=m)
        for k, (f, z, m) in enumerate(zip(subjects, latents, marks, strict=True))
    ])  # fmt: skip
    rows = read_latents(path, size=5, sha256="abc")
    assert [row.latent for row in rows] == latents
    assert [row.factors for row in rows] == subjects
    assert [row.extrapolated for row in rows] == [m.extrapolated for m in marks]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [(("z003", "z004"), "C60", "z003, z004"), (("z001,", ""), "C60", "missing or unknown"),
     (("model_sha256", "hash"), "C60", "model_sha256"), (("abc", "abd"), "C62", "model's own"),
     (("0.25", "x"), "C61", "z002: found 'x'"), (("0.25", "nan"), "C61", "finite"),
     (("0.25", ""), "C61", "finite"), (("70", "170"), "C13", "age"),
     (("h1", ""), "C26", "id"), (("h1", "../h"), "C33", "elsewhere")],
)  # fmt: skip
def test_tables_that_are_no_latents_of_the_model_are_refused(tmp_path, change, code, words):
    row = latent_row("h1", Factors(age=70), (0.5, 0.25, -1.0), sha256="abc", marks=SYNTHETIC)
    path = write_latents(tmp_path / "z.csv", [row])
    text = path.read_text()
    assert change[0] in text
    if change[0] == "z001,":
        lines = [",".join(c for k, c in enumerate(x.split(",")) if k != 9)
                 for x in text.splitlines()]  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(text.replace(*change))
    with pytest.raises(CardiogenError, match=f"CG-{code} ") as caught:
        read_latents(path, size=3, sha256="abc")
    assert words in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_store_without_zarr_is_refused_with_the_extra_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(mesh_store.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CardiogenError, match=r"CG-U31 --format: .*cardiogen\[cohort\]") as caught:
        MeshStore.create(tmp_path / "s", template_topology(), [0.0])
    assert caught.value.exit_code == 2


def test_packing_is_exact_to_half_a_hundredth_and_turns_to_lps():
    points = np.random.default_rng(0).uniform(-200, 200, (2, 7, 3))
    assert np.abs(packed(points, "ras") * 0.01 - points).max() <= 0.005 + 1e-9
    assert np.array_equal(packed(points, "lps") * [-1, -1, 1], packed(points, "ras"))
    with pytest.raises(ValueError, match="within 328 mm"):
        packed(points * 2, "ras")
    with pytest.raises(ValueError, match="within 328 mm"):
        packed(points * np.nan, "ras")


def test_a_store_grows_over_its_shards_and_is_read_back(tmp_path):
    pytest.importorskip("zarr")
    topology = template_topology()
    shape = (2, topology.vertex_count, 3)
    meshes = np.random.default_rng(1).integers(-9000, 9000, (SHARD + 5, *shape)).astype(np.int16)
    store = MeshStore.create(tmp_path / "s", topology, [0.0, 0.4], space="lps", facts={"n": 1})
    store.append(meshes[:3])
    store.append(meshes[3:])
    store.truncate(SHARD + 2)
    again = MeshStore.open(tmp_path / "s")
    again.append(meshes[SHARD + 2 :])
    again = MeshStore.open(tmp_path / "s")
    assert len(again) == len(meshes)
    for heart in (0, 2, 3, SHARD - 1, SHARD, SHARD + 4):
        assert np.allclose(again.vertices(heart), meshes[heart] * 0.01, atol=1e-4)
    assert again.phases.tolist() == [0.0, 0.4]
    assert (again.group.attrs["space"], again.group.attrs["n"]) == ("LPS", 1)
    for surface, faces in topology.surfaces.items():
        assert np.array_equal(again.group["faces"][surface.name][:], faces)
    with pytest.raises(ValueError, match="heart must be 0 to 36"):
        again.vertices(SHARD + 5)
    with pytest.raises(ValueError, match="must be int16"):
        again.append(meshes[:1].astype(float))
    with pytest.raises(CardiogenError, match="CG-S90"):
        MeshStore.open(tmp_path)
