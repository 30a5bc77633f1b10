"""Every malformed NIfTI of the reliability list: its code, exit status and words; made here.

Checked for every case: no other exception than CardiogenError, a complete message, the exit
status, and that nothing in the folder has changed.
"""

import gzip
import os
import re
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data import Grid, read_image, read_labels, write_image
from cardiogen.data import nifti_bytes as limits

SHAPE = (16, 12, 6)
SPACING = (1.5, 1.5, 8.0)


def voxels(shape=SHAPE, dtype=np.int16):
    return np.random.default_rng(0).integers(1, 999, shape[::-1]).astype(dtype)


def header_of(data, **fields):
    """Return 352 bytes of a valid header with some raw fields replaced."""
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape[::-1])
    header.set_data_dtype(data.dtype)
    affine = np.diag([-1.5, -1.5, 8.0, 1.0])
    affine[:3, 3] = (90.0, 80.0, -40.0)
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm", "sec")
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header.structarr[name] = value
    return header.structarr.tobytes() + bytes(4)


def nifti(data=None, **fields):
    data = voxels() if data is None else data
    return header_of(data, **fields) + data.tobytes()


def dims(*sizes):
    return [len(sizes), *sizes, *[1] * (7 - len(sizes))]


def pixdim(*values):
    return [1.0, *values, 0, 0, 0, 0]


def packed(content):
    return gzip.compress(content, 1, mtime=0)


def bad_crc():
    whole = bytearray(packed(nifti()))
    whole[-8] ^= 1
    return bytes(whole)


def bad_length():
    whole = bytearray(packed(nifti()))
    whole[-1] ^= 1
    return bytes(whole)


def with_value(value, dtype=np.float32):
    data = voxels(dtype=dtype)
    data[2, 3, 4] = value
    return nifti(data)


def sform(matrix):
    return {f"srow_{c}": row for c, row in zip("xyz", matrix, strict=True)}


def extended(size):
    """A header with one extension of 32 bytes that claims to have ``size``."""
    head = bytearray(header_of(voxels(), vox_offset=384))
    head[348] = 1
    return bytes(head) + struct.pack("<ii", size, 6) + bytes(24) + voxels().tobytes()


SHEARED = np.array([[1.5, 0.45, 0, 0], [0, 1.43, 0, 0], [0, 0, 8.0, 0]])
NAN, INF = float("nan"), float("inf")

# id, name, content, code, exit status, words of the message
CASES = [
    ("N01", "a.nii.gz", lambda: b"", "N01", 3, "empty file, 0 bytes"),
    ("N02", "a.nii.gz", lambda: packed(nifti())[:1500], "N02", 3, "truncated at byte .* of 2656"),
    ("N02-head", "a.nii.gz", lambda: packed(nifti())[:60], "N02", 3, "truncated at byte"),
    ("N02-tail", "a.nii.gz", lambda: packed(nifti())[:-1], "N02", 3, "truncated at byte 2656 of"),
    ("N03", "a.nii.gz", bad_crc, "N03", 3, "checksum differs"),
    ("N03-size", "a.nii.gz", bad_length, "N03", 3, "checksum differs .*length"),
    ("N04", "a.nii.gz", lambda: packed(nifti()) + b"junk!", "N04", 3, "5 surplus bytes"),
    ("N04-raw", "a.nii", lambda: nifti() + b"junk!", "N04", 3, "5 surplus bytes"),
    ("N05", "a.nii", lambda: nifti()[:1500], "N05", 3, "has 1500 of 2656 bytes"),
    ("N05-gz", "a.nii.gz", lambda: packed(nifti()[:1500]), "N05", 3, "has 1500 of 2656 bytes"),
    ("N05-head", "a.nii", lambda: nifti()[:200], "N05", 3, "has 200 of 348 bytes"),
    ("N06", "a.nii", lambda: nifti()[:348], "N06", 3, "no voxel data"),
    ("N06-gz", "a.nii.gz", lambda: packed(nifti()[:352]), "N06", 3, "no voxel data"),
    ("N07", "a.nii.gz", lambda: packed(nifti(dim=dims(32767, 32767, 32767))), "N07", 6,
     "declared 64 TiB > cap"),
    ("N08b", "a.nii.gz", lambda: packed(nifti() + bytes(9_000_000)), "N08b", 3,
     "surplus bytes: more than the declared 2656"),
    ("N09", "a.nii", lambda: nifti(dim=[0, *[1] * 7]), "N09", 3, r"dim\[0\]=0"),
    ("N10", "a.nii", lambda: nifti(dim=[9, *SHAPE, 1, 1, 1, 1]), "N10", 3, r"dim\[0\] 1\.\.7"),
    ("N11", "a.nii", lambda: nifti(dim=dims(-16, 12, 6)), "N11", 3, r"dim\[1\]=-16"),
    ("N12", "a.nii", lambda: nifti(dim=dims(16, 0, 6)), "N12", 3, r"dim\[2\]=0, so no voxels"),
    ("N13", "a.nii", lambda: nifti(pixdim=pixdim(0, 1.5, 8)), "N13", 3, r"pixdim\[1\]=0"),
    ("N14", "a.nii", lambda: nifti(pixdim=pixdim(-1.5, 1.5, 8)), "N14", 3, "pixdim<0"),
    ("N15", "a.nii", lambda: nifti(pixdim=pixdim(1.5, NAN, 8)), "N15", 3,
     r"pixdim\[2\]=nan \(not finite"),
    ("N16", "a.nii", lambda: nifti(srow_x=[NAN, 0, 0, 0]), "N16", 3, "srow_x not finite"),
    ("N17", "a.nii", lambda: nifti(**sform(np.zeros((3, 4)))), "N17", 3, "singular"),
    ("N17-flat", "a.nii", lambda: nifti(**sform([[1.5, 1.5, 0, 0], [0, 0, 0, 0], [0, 0, 8, 0]])),
     "N17", 3, "singular"),
    ("N18", "a.nii", lambda: nifti(srow_x=[-1.5, 0, 0, 140.0]), "N18", 3,
     "50 mm apart: sform .*140.*qform .*90.*--prefer sform or --prefer qform"),
    ("N18b", "a.nii", lambda: nifti(**sform(np.eye(4)[:3])), "N18b", 3,
     "sform spacing 1 x 1 x 1 mm against pixdim 1.5 x 1.5 x 8 mm.*--prefer pixdim"),
    ("N19", "a.nii", lambda: nifti(**sform(SHEARED)), "N19", 3, "shear 0.3002 .*--repair-shear"),
    ("N22a", "a.nii", lambda: nifti(xyzt_units=9), "N22", 3, "8000 mm implausible .*metre"),
    ("N22b", "a.nii", lambda: nifti(xyzt_units=11), "N22", 3, "0.008 mm implausible .*micron"),
    ("N24", "a.nii", lambda: nifti(quatern_b=0.9, quatern_c=0.9), "N24", 3, "qform whose quatern"),
    ("N24-nan", "a.nii", lambda: nifti(quatern_b=NAN), "N24", 3, "qform"),
    ("N25", "a.nii", lambda: nifti(sform_code=0, qform_code=0), "N25", 3,
     "no orientation.*--prefer pixdim"),
    ("N26", "a.nii", lambda: with_value(NAN), "N26", 3, r"1 NaN voxels.*\(4, 3, 2\)"),
    ("N27", "a.nii", lambda: with_value(INF), "N27", 3, r"1 Inf voxels.*\(4, 3, 2\)"),
    ("N27-both", "a.nii", lambda: nifti(np.where(voxels() < 500, INF, -INF).astype("f4")), "N27",
     3, "1152 Inf voxels"),
    ("N28c", "a.nii", lambda: nifti(scl_slope=INF), "N28c", 3, "scl_slope=inf"),
    ("N28d", "a.nii", lambda: nifti(scl_slope=1e38), "N28d", 3, "value range"),
    ("N28e", "a.nii", lambda: nifti(scl_inter=NAN), "N28e", 3, "scl_inter=nan"),
    ("N30", "a.nii", lambda: nifti(magic=b"XXX"), "N30", 3, "not NIfTI"),
    ("N30-text", "a.nii", lambda: b"hello world", "N30", 3, "not NIfTI"),
    ("N30b", "a.nii", lambda: nifti(magic=b"ni1"), "N30b", 3, "pair without .img"),
    ("N32a", "a.nii", lambda: nifti(vox_offset=1e5), "N32", 3, "vox_offset=100000, past the end"),
    ("N32b", "a.nii", lambda: nifti(vox_offset=-352), "N32", 3, "vox_offset=-352"),
    ("N32c", "a.nii", lambda: nifti(vox_offset=NAN), "N32", 3, "vox_offset=nan"),
    ("N32d", "a.nii", lambda: nifti(vox_offset=10), "N32", 3, "vox_offset=10"),
    ("N32e", "a.nii.gz", lambda: packed(nifti(vox_offset=3e9)), "N32", 3, "vox_offset=3e"),
    ("N33", "a.nii", lambda: nifti(bitpix=32), "N33", 3, "bitpix=32 .*bitpix=16 for datatype 4"),
    ("N34a", "a.nii", lambda: nifti(datatype=999), "N34", 3, "999 .*uint8/16/32/64"),
    ("N34b", "a.nii", lambda: nifti(datatype=32, bitpix=64), "N34", 3, "complex64"),
    ("N34c", "a.nii", lambda: nifti(datatype=128, bitpix=24), "N34", 3, "RGB24"),
    ("N35a", "a.nii", lambda: extended(1 << 30), "N35", 3, "extension of 1073741824 bytes"),
    ("N35b", "a.nii", lambda: extended(-16), "N35", 3, "extension of -16 bytes"),
    ("N35c", "a.nii", lambda: extended(17), "N35", 3, "extension of 17 bytes"),
    ("N36a", "a.nii", lambda: nifti(dim=dims(16, 12, 6, 1, 1)), "N36", 3,
     r"shape \(16, 12, 6, 1, 1\); expected \(X, Y, Z\)"),
    ("N36b", "a.nii", lambda: nifti(dim=dims(16, 72)), "N36", 3, r"shape \(16, 72\)"),
    ("N39", "a.nii", lambda: nifti(np.full(SHAPE[::-1], 7, "i2")), "N39", 3, "zero variance"),
    ("N41", "a.nii.gz", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
     "N41", 3, "looks like a git-lfs pointer"),
    ("N42", "a.nii.gz", lambda: b"\n<!DOCTYPE html><title>404</title>", "N42", 3, "web page"),
    ("N42-gz", "a.nii.gz", lambda: packed(b"<HTML>" + bytes(500)), "N42", 3, "web page"),
    ("N45", "a.nii.gz", lambda: packed(packed(nifti())), "N45", 3, "format: compressed twice"),
    ("N46", "a.nii.gz", lambda: b"PK\x03\x04" + bytes(900), "N46", 3, "zip archive"),
    ("N48", "a.hdr", lambda: header_of(voxels(), magic=b"ni1")[:348], "N48", 3, "without .img"),
    ("N49", "a.hdr", lambda: header_of(voxels(), magic=b"")[:348], "N49", 3, "left-right unknown"),
    ("N49-nii", "a.nii", lambda: nifti(magic=b""), "N49", 3, "Analyze 7.5"),
]  # fmt: skip


def snapshot(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def refused(path, read=read_image, **options):
    """Return the error of reading ``path``, after the checks that hold for every refusal."""
    before = snapshot(path.parent) if path.parent.is_dir() else None
    with pytest.raises(CardiogenError, match=r"^CG-\w+ .+: found .+; expected .+; try .+") as told:
        read(path, **options)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)
    assert before is None or snapshot(path.parent) == before
    return told.value


@pytest.mark.parametrize(
    ("name", "make", "code", "status", "words"),
    [case[1:] for case in CASES], ids=[case[0] for case in CASES],
)  # fmt: skip
def test_malformed_file_is_refused(tmp_path, name, make, code, status, words):
    (tmp_path / name).write_bytes(make())
    error = refused(tmp_path / name)
    assert error.code == code
    assert error.exit_code == status
    assert re.search(words, str(error)), str(error)


def test_the_valid_file_of_which_all_others_are_made(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti())
    image = read_image(tmp_path / "a.nii")
    assert np.array_equal(image.data, voxels())
    assert image.notes == ()
    assert image.orientation == "trusted"
    assert image.grid.spacing == (8.0, 1.5, 1.5)


# Files that are read, with the code of the note that tells of them.
NOTED = [
    ("N22c", "a.nii", lambda: nifti(xyzt_units=0), "N22c", "assumed mm"),
    ("N28a", "a.nii", lambda: nifti(scl_slope=0, scl_inter=5), "N28", "scl_slope=0"),
    ("N28b", "a.nii", lambda: nifti(scl_slope=NAN), "N28", "not scaled"),
    ("N35d", "a.nii", lambda: nifti(db_name=b"Jane Doe", descrip=b"ward 3"), "N35d",
     "descrip, db_name"),
    ("N35d-ext", "a.nii", lambda: extended(32), "N35d", "extensions"),
    ("N43", "a.nii", lambda: packed(nifti()), "N43", "real format is gzip"),
    ("N44", "a.nii.gz", nifti, "N44", "real format is raw"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "code", "words"), [c[1:] for c in NOTED], ids=[c[0] for c in NOTED]
)
def test_doubtful_file_is_read_with_a_note(tmp_path, name, make, code, words):
    (tmp_path / name).write_bytes(make())
    image = read_image(tmp_path / name)
    assert np.array_equal(image.data, voxels())
    (note,) = image.notes
    assert note.code == code
    assert words in note.text
    assert "Jane" not in str(note)
    assert "ward" not in str(note)


def test_padding_after_the_last_extension_is_allowed(tmp_path):
    head = bytearray(header_of(voxels(), vox_offset=416))
    head[348] = 1
    whole = bytes(head) + struct.pack("<ii", 32, 6) + bytes(24) + bytes(32) + voxels().tobytes()
    (tmp_path / "a.nii").write_bytes(whole)
    assert np.array_equal(read_image(tmp_path / "a.nii").data, voxels())


def test_wrapped_integers_are_noted(tmp_path):
    wrapped = np.where(voxels() < 500, -32768, 32767).astype("i2")
    (tmp_path / "a.nii").write_bytes(nifti(wrapped))
    (note,) = read_image(tmp_path / "a.nii").notes
    assert note.code == "N29"
    assert "saturation share 100" in note.text


@pytest.mark.parametrize("kind", ["folder", "loop", "fifo", "missing"])
def test_what_is_no_regular_file_is_refused_unopened(tmp_path, kind):
    path = tmp_path / "a.nii.gz"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(CardiogenError, match="CG-N47"):
        read_image(path)


# Volumes of 512 MiB are heavy for a test, so the thresholds are lowered instead.
def test_inflation_bomb_is_refused_before_it_inflates(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_FREE_RATIO_BYTES", 1 << 20)
    shape = (128, 128, 128)
    bomb = gzip.compress(header_of(np.zeros(shape, "u1")) + bytes(128**3), 9)
    (tmp_path / "a.nii.gz").write_bytes(bomb)
    monkeypatch.setattr(limits, "_inflate", lambda *_: pytest.fail("inflated a bomb"))
    error = refused(tmp_path / "a.nii.gz")
    assert error.code == "N08"
    assert error.exit_code == 6
    assert "ratio" in str(error)
    assert "--max-volume" in str(error)


def test_given_limit_governs_both_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_FREE_RATIO_BYTES", 1 << 10)
    monkeypatch.setattr(limits, "_MAX_RATIO", 50)
    data = np.zeros((40, 40, 40), "u1")
    data[3] = 1
    (tmp_path / "a.nii.gz").write_bytes(packed(nifti(data)))
    assert refused(tmp_path / "a.nii.gz").code == "N08"
    assert read_image(tmp_path / "a.nii.gz", limit=70_000).data.sum() == 1600
    error = refused(tmp_path / "a.nii.gz", limit=60_000)
    assert error.code == "N07"
    assert error.exit_code == 6


def test_every_truncation_and_bit_flip_of_gzip_is_found(tmp_path):
    whole = packed(nifti())
    path = tmp_path / "a.nii.gz"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(CardiogenError, match=r"CG-N(0|30)"):
            read_image(path)
    for position in range(10, len(whole), 5):  # the first ten bytes are flags and a clock
        hurt = bytearray(whole)
        hurt[position] ^= 1 << (position % 8)
        path.write_bytes(hurt)
        with pytest.raises(CardiogenError, match="CG-N"):
            read_image(path)


def nifti2():
    header = nib.Nifti2Header()
    affine = np.diag([-1.5, -1.5, 8.0, 1.0])
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm")
    header["magic"], header["vox_offset"] = b"n+2", 544
    return header.structarr.tobytes() + bytes(4) + voxels().tobytes()


@pytest.mark.parametrize(("whole", "size"), [(nifti(), 352), (nifti2(), 544)])
def test_random_headers_end_in_an_image_or_an_error(tmp_path, whole, size):
    rng, path, refusals = np.random.default_rng(1), tmp_path / "a.nii", []
    path.write_bytes(whole)
    assert np.array_equal(read_image(path).data, voxels())
    for _ in range(300):
        hurt = bytearray(whole)
        for position in rng.integers(0, size, rng.integers(1, 9)):
            hurt[position] = rng.choice([0, 255, 127, rng.integers(256)])
        path.write_bytes(hurt)
        try:
            read_image(path, prefer=[None, "sform", "qform", "pixdim"][rng.integers(4)])
        except CardiogenError as error:
            refusals.append(error.exit_code)
    assert len(refusals) > 90
    assert set(refusals) <= {3, 6}


def test_concatenated_gzip_members_are_one_file(tmp_path):
    whole = nifti()
    (tmp_path / "a.nii.gz").write_bytes(packed(whole[:900]) + packed(whole[900:]))
    assert np.array_equal(read_image(tmp_path / "a.nii.gz").data, voxels())


def test_endless_empty_members_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_MAX_MEMBERS", 50)
    (tmp_path / "a.nii.gz").write_bytes(packed(nifti()) + packed(b"") * 60)
    assert refused(tmp_path / "a.nii.gz").code == "N04"


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_unknown_compression_block_is_damage(tmp_path, bits):
    packer = zlib.compressobj(1, wbits=31)
    content = packer.compress(nifti()) + packer.flush()
    hurt = content[:30] + bytes([0xFF] * (bits // 8)) + content[30:]
    (tmp_path / "a.nii.gz").write_bytes(hurt)
    assert refused(tmp_path / "a.nii.gz").code in ("N02", "N03", "N30")


LABELS = np.zeros(SHAPE[::-1], np.uint8)
LABELS[1:5, 3:9, 3:9] = np.arange(4)[:, None, None] % 3 + 1


@pytest.mark.parametrize(
    ("case", "data", "code", "words"),
    [
        ("L37", np.zeros_like(LABELS), "L37", "classes missing: LV, MYO, RV"),
        ("L38", LABELS + np.float32(0.5) * (LABELS == 2), "L38", "non-integer label 2.5"),
        ("L39", LABELS + 6 * (LABELS == 1).astype("u1"), "L39", r"\[7\].*1=RV, 2=MYO, 3=LV"),
        ("L39-neg", LABELS.astype("i2") - 1, "L39", r"\[-1\]"),
        ("L39-float", LABELS.astype("f4") * 3, "L39", r"\[6, 9\]"),
        ("L40d", np.where(LABELS == 1, NAN, LABELS).astype("f4"), "L40d", "72 NaN voxels"),
    ],
    ids=lambda value: value if isinstance(value, str) and value[0] == "L" else "",
)  # fmt: skip
def test_malformed_labels_are_refused(tmp_path, case, data, code, words):
    (tmp_path / "a.nii.gz").write_bytes(packed(nifti(np.asarray(data))))
    error = refused(tmp_path / "a.nii.gz", read_labels, label_map="acdc")
    assert (error.code, error.exit_code) == (code, 3)
    assert re.search(words, str(error)), str(error)


def test_unknown_label_map_is_a_usage_error(tmp_path):
    with pytest.raises(CardiogenError, match=r"CG-U11 .*'mine'.*acdc, ukbb, mnms"):
        read_labels(tmp_path / "a.nii.gz", label_map="mine")


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "f4", ">f8", "i4"])
def test_codes_become_structures_in_any_type(tmp_path, dtype):
    data = LABELS.astype(dtype)
    content = nifti(data) if dtype[0] != ">" else big_endian(data)
    (tmp_path / "a.nii").write_bytes(content)
    labels = read_labels(tmp_path / "a.nii", label_map="acdc").data
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.array([0, 3, 2, 1], "u1")[LABELS])


def big_endian(data):
    """N31: the same file in the other byte order."""
    little = data.astype(data.dtype.newbyteorder("<"))
    header = nib.Nifti1Header(header_of(little)[:348]).as_byteswapped(">")
    return (
        header.structarr.tobytes() + bytes(4) + data.astype(data.dtype.newbyteorder(">")).tobytes()
    )


def test_big_endian_gives_the_identical_result(tmp_path):
    (tmp_path / "little.nii").write_bytes(nifti())
    (tmp_path / "big.nii").write_bytes(big_endian(voxels()))
    little, big = (read_image(tmp_path / f"{n}.nii") for n in ("little", "big"))
    assert np.array_equal(little.data, big.data)
    assert big.data.dtype.isnative
    assert np.array_equal(little.grid.affine, big.grid.affine)


@pytest.mark.parametrize(
    ("sizes", "frames", "words"),
    [((4, 3, 6, 16), "one", r"shape \(4, 3, 6, 16\); expected \(X, Y, Z\);"),
     ((16, 12, 6, 1), "many", r"expected \(X, Y, Z, T\) with T of at least 2"),
     ((16, 12, 6), "many", r"shape \(16, 12, 6\); expected \(X, Y, Z, T\)")],
)  # fmt: skip
def test_wrong_number_of_frames_is_refused(tmp_path, sizes, frames, words):
    (tmp_path / "a.nii").write_bytes(nifti(dim=dims(*sizes)))
    with pytest.raises(CardiogenError, match=f"CG-N36 .*{words}"):
        read_image(tmp_path / "a.nii", frames=frames)


@pytest.mark.parametrize("name", ["-rf.nii.gz", "a\nb.nii.gz", "x" * 248 + ".nii.gz", "CON.nii.gz",
                                  "\u202egz.iin.nii.gz", "ü ß.nii.gz"])  # fmt: skip
def test_odd_names_are_read_and_cannot_forge_messages(tmp_path, name):
    (tmp_path / name).write_bytes(packed(nifti()))
    assert np.array_equal(read_image(tmp_path / name).data, voxels())
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CardiogenError, match="CG-N30") as caught:
        read_image(tmp_path / name)
    assert str(caught.value).isprintable()


def test_writer_refuses_what_the_reader_would(tmp_path):
    data = voxels((5, 5, 5))
    axes = np.eye(3)
    axes[0, 1] = 0.3
    for code, grid in (("N22", Grid.regular((5, 5, 5), (8, 8, 8))),
                       ("N19", Grid.regular((5, 5, 5), (2, 2, 2), axes=axes))):  # fmt: skip
        with pytest.raises(CardiogenError, match=f"CG-{code}"):
            write_image(tmp_path / "a.nii", data, grid)
    assert list(tmp_path.iterdir()) == []
