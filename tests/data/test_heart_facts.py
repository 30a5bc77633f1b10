"""What parameters.json says of a heart's labels is believed, and a wrong one is named."""

import json
import os

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data import (
    Grid,
    check_cohort,
    encode_labels,
    load_sequence,
    read_cohort,
    write_image,
    write_table,
)
from cardiogen.data.heart_facts import HeartFacts, facts_beside, read_heart_facts
from cardiogen.measure import measure_path

GRID = Grid.regular((5, 22, 25), (8, 1.4, 1.9), (5, -20, 31))
FACTS = {"label_map": {"name": "acdc"}, "key_frames": {"ED": 1, "ES": 3}}


def heart(radius):
    """Labels of a tube with a cavity of ``radius`` voxels, and a box beside it."""
    h, w = np.meshgrid(np.arange(22), np.arange(25), indexing="ij")
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, 4:18, 17 : 17 + radius] = 3
    labels[:, (h - 11) ** 2 + (w - 10) ** 2 < 64] = 2
    labels[1:, (h - 11) ** 2 + (w - 10) ** 2 < radius**2] = 1
    return labels


def store(folder, facts, radii):
    folder.mkdir(parents=True, exist_ok=True)
    codes = encode_labels(np.stack([heart(r) for r in radii]), "acdc")
    write_image(
        folder / "labels.nii.gz", codes if len(codes) > 1 else codes[0], GRID, frame_time_s=0.2
    )
    (folder / "parameters.json").write_text(json.dumps(facts))


def test_facts_are_read_and_other_files_of_that_name_say_nothing(tmp_path):
    assert read_heart_facts(tmp_path) == HeartFacts()
    path = tmp_path / "parameters.json"
    path.write_text(json.dumps(FACTS | {"seed": 2**63, "extrapolated": "no"}))
    facts = read_heart_facts(tmp_path)
    assert facts == HeartFacts(label_map="acdc", ed_frame=1, es_frame=3, orientation="trusted")
    assert facts.cells == {"label_map": "acdc", "ed_frame": "1", "es_frame": "3"}
    assert facts_beside(tmp_path / "labels.nii.gz") == facts
    assert facts_beside(tmp_path / "seg.nii.gz") == HeartFacts()
    path.write_text('{"learning_rate": 0.1}')
    assert read_heart_facts(tmp_path) == HeartFacts()


BAD = {
    "no JSON": (b"label_map: acdc", "line 1"),
    "duplicate key": (b'{"label_map": {"name": "acdc", "name": "ukbb"}}', "twice"),
    "NaN": (b'{"cycle_s": NaN}', "constant NaN"),
    "depth": (b'{"a":' * 200_000, "deeper"),
    "size": (b" " * (1 << 21), "at most 1048576 bytes"),
    "a list": (b'["acdc"]', "an object"),
    "map by name": (b'{"label_map": "acdc"}', "/label_map: found 'acdc'; expected an object"),
    "unknown map": (b'{"label_map": {"name": "mine"}}', "/label_map/name: .*one of acdc"),
    "number for a map": (b'{"label_map": {"name": 3}}', "/label_map/name: found 3"),
    "list for a map": (b'{"label_map": {"name": [[]]}}', "/label_map/name"),
    "path for a map": (b'{"label_map": {"name": "../../etc/passwd"}}', "/label_map/name"),
    "list of frames": (b'{"key_frames": [0, 3]}', "/key_frames: .*an object"),
    "unknown phase": (b'{"key_frames": {"MD": 0}}', "/key_frames: found 'MD'"),
    "negative frame": (b'{"key_frames": {"ED": -1}}', "/key_frames/ED: found -1"),
    "half a frame": (b'{"key_frames": {"ES": 2.5}}', "/key_frames/ES: found 2.5"),
    "true frame": (b'{"key_frames": {"ES": true}}', "/key_frames/ES: found True"),
    "no frame": (b'{"key_frames": {"ES": null}}', "/key_frames/ES: found None"),
    "endless frame": (b'{"key_frames": {"ES": %s}}' % (b"9" * 300), "/key_frames/ES"),
    "text for a flag": (b'{"heart_rate_is_nominal": "no"}', "/heart_rate_is_nominal: .*true or"),
    "number for a flag": (b'{"mirrored_world": 1}', "/mirrored_world: found 1"),
    "one frame for both": (b'{"key_frames": {"ED": 2, "ES": 2}}', "/key_frames: .*two frames"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_wrong_facts_are_named(tmp_path, name):
    content, words = BAD[name]
    (tmp_path / "parameters.json").write_bytes(content)
    with pytest.raises(CardiogenError, match=f"CG-C36 .*parameters.json.*{words}") as caught:
        read_heart_facts(tmp_path)
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 400


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "parameters.json")
    with pytest.raises(CardiogenError, match=r"CG-C47 .*not a regular file"):
        read_heart_facts(tmp_path)
    (tmp_path / "parameters.json").unlink()
    (tmp_path / "parameters.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CardiogenError, match="CG-C47"):
        read_heart_facts(tmp_path)


def test_a_folder_with_facts_needs_no_label_map(tmp_path):
    # The frame of most blood is not ED here: what is said counts, not what is seen.
    store(tmp_path / "h", FACTS, (6, 5, 4, 3))
    (subject,) = read_cohort(tmp_path / "h")
    assert (subject.label_map, subject.ed_frame, subject.es_frame) == ("acdc", 1, 3)
    sequence = load_sequence(subject)
    assert (sequence.ed, sequence.es, sequence.notes) == (1, 3, ())
    assert np.array_equal(sequence.labels[1], heart(5))
    assert read_cohort(tmp_path / "h", label_map="mnms")[0].label_map == "mnms"


@pytest.mark.parametrize(("nominal", "cycle"), [(True, None), (False, 0.8)])
def test_a_nominal_rate_is_no_measured_cycle(tmp_path, nominal, cycle):
    store(tmp_path / "h", FACTS | {"heart_rate_is_nominal": nominal}, (6, 5, 4, 3))
    assert load_sequence(read_cohort(tmp_path / "h")[0]).cycle_s == pytest.approx(cycle)
    output = measure_path(tmp_path / "h" / "labels.nii.gz").table["LVCO (L/min)"][0]
    assert np.isfinite(output) != nominal


@pytest.mark.parametrize(("mirrored", "found"), [(True, "mirrored"), (False, "trusted")])
def test_orientation_of_a_completed_heart_is_remembered(tmp_path, mirrored, found):
    store(tmp_path / "h", FACTS | {"mirrored_world": mirrored}, (6, 5, 4, 3))
    assert load_sequence(read_cohort(tmp_path / "h")[0]).orientation == found


def test_the_table_of_a_cohort_counts_more(tmp_path):
    store(tmp_path / "h", FACTS, (6, 5, 4, 3))
    write_table(tmp_path / "subjects.csv", ["subject_id", "label_map", "ed_frame", "es_frame"],
                [["h", "mnms", 0, None]])  # fmt: skip
    (subject,) = read_cohort(tmp_path)
    assert (subject.label_map, subject.ed_frame, subject.es_frame) == ("mnms", 0, 3)


@pytest.mark.parametrize(("phase", "es"), [("ED", None), ("ES", 0)])
@pytest.mark.parametrize("said_by", ["parameters.json", "subjects.csv"])
def test_a_single_frame_is_what_it_is_said_to_be(tmp_path, phase, es, said_by):
    in_table = said_by == "subjects.csv"
    store(tmp_path / "h", {} if in_table else FACTS | {"key_frames": {phase: 0}}, (5,))
    if in_table:
        columns = ["subject_id", "label_map", "n_frames", f"{phase.lower()}_frame"]
        write_table(tmp_path / "subjects.csv", columns, [["h", "acdc", 1, 0]])
    (subject,) = read_cohort(tmp_path if in_table else tmp_path / "h")
    sequence = load_sequence(subject)
    assert (sequence.ed, sequence.es) == (0, es)
    assert [note.text[:14] for note in sequence.notes] == (
        [] if es is None else ["the time of ES"]
    )
    assert check_cohort(tmp_path if in_table else tmp_path / "h").errors == ()


def test_frames_that_the_file_lacks_are_refused(tmp_path):
    store(tmp_path / "h", FACTS | {"key_frames": {"ED": 0, "ES": 4}}, (6, 5, 4, 3))
    with pytest.raises(CardiogenError, match="CG-N37 .*es_frame=4 of 4 frames"):  # noqa: RUF043
        load_sequence(read_cohort(tmp_path / "h")[0])


def test_a_wrong_file_costs_its_subject_only(tmp_path):
    for name, radius in (("a", 4), ("b", 5)):
        store(tmp_path / name, FACTS | {"key_frames": {}}, (radius + 1, radius))
    (tmp_path / "a" / "parameters.json").write_text("{")
    write_table(tmp_path / "subjects.csv", ["subject_id"], [["a"], ["b"]])
    report = check_cohort(tmp_path)
    assert [(e.code, e.file) for e in report.errors] == [
        ("CG-C36", str(tmp_path / "a" / "parameters.json"))
    ]
    assert report.subjects == 1
