"""List the subjects of a cohort with every fault that names and tables show; opens no image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from cardiogen.base import CardiogenError, Note, read_bounded
from cardiogen.data.factor_table import (
    folded,
    id_faults,
    id_notes,
    misspelled_columns,
    row_faults,
)
from cardiogen.data.factors import Factors, factor_faults, parse_number
from cardiogen.data.heart_facts import HeartFacts, read_heart_facts
from cardiogen.data.labels import label_map as known_map
from cardiogen.data.layouts import (
    RULES,
    TELLTALES,
    detect_layout,
    file_name,
    present_files,
    require_folder,
)
from cardiogen.data.subject import Layout, Subject
from cardiogen.data.tables import scan_table

_INFO_LIMIT = 1 << 16


@dataclass
class CohortScan:
    """What a look at names and tables found; no image is opened."""

    layout: Layout
    subjects: list[Subject] = field(default_factory=list)
    faults: list[CardiogenError] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def scan_cohort(folder: Path, layout: Layout | None, label_map: str | None) -> CohortScan:
    """List subjects and every fault that names and tables show."""
    require_folder(folder)
    if label_map is not None:
        known_map(label_map)
    layout = detect_layout(folder) if layout is None else layout
    if layout not in RULES:
        raise CardiogenError(
            "U12", "--layout", found=repr(layout), expected=f"one of {', '.join(RULES)}",
            remedy="the layout that your folder follows",
        )  # fmt: skip
    scan = CohortScan(layout)
    single = any(any(folder.glob(p)) for name, p in TELLTALES if name == layout)
    places = {folder.resolve().name: folder} if single else {
        normalize("NFC", place.name): place for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
    }  # fmt: skip
    in_table = RULES[layout].table and not single
    listed = _listed(folder, scan, required=in_table)
    # Where the table could not be read, that alone is reported, not every folder with it.
    told = in_table and bool(listed)
    _check_names(places, scan)
    for name, place in places.items():
        where, cells = listed.pop(name, (None, {}))
        if where is None and not any(place.glob("*.nii*")) and not (place / "Info.cfg").exists():
            scan.notes.append(Note("C29", str(place), "a folder without images, left out"))
            continue
        if where is None and told:
            scan.faults.append(CardiogenError(
                "C29", place, found=f"folder {name} without a row in subjects.csv",
                expected="a row for every folder", remedy="adding the row or moving the folder",
            ))  # fmt: skip
        _add_subject(scan, name, place, where or str(place), cells, label_map)
    for name, (where, _) in listed.items():
        scan.faults.append(CardiogenError(
            "C29", where, found=f"subject {name!r} without a folder",
            expected=f"folder {folder / name}", remedy="adding its files or removing the row",
        ))  # fmt: skip
    if not scan.subjects and not scan.faults:
        scan.faults.append(CardiogenError(
            "L50", folder, found="no subjects", expected=f"subjects in the layout {layout}",
            remedy="another folder or --layout",
        ))  # fmt: skip
    return scan


def _check_names(places: dict[str, Path], scan: CohortScan) -> None:
    seen: dict[str, Path] = {}
    for name, place in places.items():
        first = seen.setdefault(folded(name), place)
        if first != place:
            scan.faults.append(CardiogenError(
                "L47", place, found=f"the same name as {first} but for case or Unicode form",
                expected="ids that differ in more than case", remedy="renaming one",
            ))  # fmt: skip


def _listed(
    folder: Path, scan: CohortScan, *, required: bool
) -> dict[str, tuple[str, dict[str, str]]]:
    """Return ``path:row`` and cells of every subject that ``subjects.csv`` lists."""
    path = folder / "subjects.csv"
    if not path.exists() and not required:
        return {}
    table, faults = scan_table(path)
    scan.faults += faults + id_faults(table) + row_faults(table)
    scan.notes += [*table.notes, *id_notes(table)]
    scan.notes += [Note(f.code, f.where, f.found) for f in misspelled_columns(table)]
    if table.rows and table.id_column is None:
        scan.faults.append(CardiogenError(
            "C26", f"{path}:1", found=f"columns {list(table.columns)}",
            expected="a column subject_id", remedy="adding the ids",
        ))  # fmt: skip
        return {}
    column = table.id_column
    rows = ((where, cells) for where, cells in table.records() if cells[column])
    # Some file systems hand out names in another Unicode form than the table has.
    return {normalize("NFC", cells[column]): (where, cells) for where, cells in rows}


def _add_subject(
    scan: CohortScan,
    name: str,
    place: Path,
    where: str,
    cells: dict[str, str],
    label_map: str | None,
) -> None:
    """Add the subject of a folder, and what its table row or ``Info.cfg`` has wrong."""
    rules, facts, ours = RULES[scan.layout], cells, HeartFacts()
    if scan.layout == "acdc":
        where = str(place / "Info.cfg")
        try:
            facts = {**cells, **_info(place)}
        except CardiogenError as error:
            scan.faults.append(error)
        scan.faults += factor_faults(facts, where=where)
    try:
        if scan.layout == "cardiogen":
            ours = read_heart_facts(place)
            facts = ours.cells | {k: cell for k, cell in cells.items() if cell}
        codes = _codes(label_map or facts.get("label_map") or rules.label_map, where)
    except CardiogenError as error:
        scan.faults.append(error)
        return
    ed, es, n_frames = _frame_numbers(scan, facts, where)
    folder_name = place.resolve().name
    labels = present_files(place, rules.labels, folder_name, ed, es)
    for phase in ("ed", "es") if "all" not in labels else ():
        if phase not in labels:
            scan.faults.append(CardiogenError(
                "N37", place, found=f"no {phase.upper()} labels",
                expected=f"{file_name(rules.labels[phase], folder_name, ed, es)}.nii.gz",
                remedy="adding the frame, or excluding the subject",
            ))  # fmt: skip
    if not labels:
        return
    shift = rules.first_frame
    scan.subjects.append(Subject(
        subject_id=name, folder=place, layout=scan.layout, label_map=codes, labels=labels,
        images=present_files(place, rules.images, folder_name, ed, es), factors=_factors(facts),
        group=facts.get("group") or None, n_frames=n_frames,
        ed_frame=None if ed is None else ed - shift, es_frame=None if es is None else es - shift,
        prefer=rules.prefer, orientation=ours.orientation or rules.orientation,
        nominal_rate=ours.nominal_rate,
    ))  # fmt: skip


def _codes(name: str | None, where: str) -> str:
    if not name:
        raise CardiogenError(
            "L39", where, found="no label_map", expected="the map that the codes follow",
            remedy="--label-map, or a column label_map",
        )  # fmt: skip
    try:
        known_map(name)
    except CardiogenError as error:
        raise error.at(f"{where}/label_map") from error
    return name


def _frame_numbers(
    scan: CohortScan, facts: dict[str, str], where: str
) -> tuple[int | None, int | None, int | None]:
    """Return ED, ES and frame count as written; faulty numbers become faults and None."""
    first = RULES[scan.layout].first_frame
    numbers: list[int | None] = []
    for key, low in (("n_frames", 1), ("ed_frame", first), ("es_frame", first)):
        text, value = facts.get(key, ""), None
        try:
            value = _whole(text, low, f"{where}/{key}") if text else None
            if value is not None and numbers and numbers[0] and value >= numbers[0] + first:
                raise CardiogenError(
                    "C13", f"{where}/{key}", found=f"frame {value} of {numbers[0]}",
                    expected=f"{first} to {numbers[0] + first - 1}", remedy="correcting the value",
                )  # fmt: skip
        except CardiogenError as error:
            scan.faults.append(error)
            value = None
        numbers.append(value)
    n_frames, ed, es = numbers
    return ed, es, n_frames


def _whole(text: str, low: int, where: str) -> int:
    value = parse_number(text, where)
    if value != int(value) or not low <= value <= 10_000:
        raise CardiogenError(
            "C13", where, found=text, expected=f"a whole number from {low}",
            remedy="correcting the value",
        )  # fmt: skip
    return int(value)


def _factors(facts: dict[str, str]) -> Factors:
    try:
        return Factors.from_mapping(facts)
    except CardiogenError:
        # Already among the faults of the scan; the images can be judged without.
        return Factors()


def _info(place: Path) -> dict[str, str]:
    """Return the facts of ``Info.cfg`` under the column names of a table."""
    path = place / "Info.cfg"
    columns = {"ed": "ed_frame", "es": "es_frame", "nbframe": "n_frames", "group": "group",
               "height": "height_cm", "weight": "weight_kg"}  # fmt: skip
    text = read_bounded(path, limit=_INFO_LIMIT, family="C").decode("utf-8", "replace")
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip().lower() in columns:
            facts[columns[key.strip().lower()]] = value.strip()
    for key in ("ed_frame", "es_frame"):
        if not facts.get(key):
            raise CardiogenError(
                "C28", path, found=f"no {key[:2].upper()} frame number",
                expected="lines ED: and ES:", remedy="the Info.cfg of the challenge",
            )  # fmt: skip
    return facts
