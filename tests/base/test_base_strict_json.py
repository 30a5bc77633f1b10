"""Strict JSON takes what JSON is and refuses every trap of the common parsers."""

import pytest

from cardiogen.base import CardiogenError
from cardiogen.base.strict_json import MAX_BYTES, parse_json, read_small


def test_json_values_round_trip():
    text = '{"a": [1, -2.5e3, true, null], "b": {"c": "caf\\u00e9 \\ud83d\\ude00 {[", "d": ""}}'
    found = parse_json(text.encode(), "x.json", code="M07")
    assert found == {"a": [1, -2500.0, True, None], "b": {"c": "café 😀 {[", "d": ""}}
    assert parse_json(b"9007199254740993", "x.json", code="M07") == 9007199254740993


BAD = {
    "duplicate key": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' twice"),
    "escaped duplicate": (b'{"a": 1, "\\u0061": 2}', "key 'a' twice"),
    "nan": (b'{"a": NaN}', "constant NaN"),
    "infinity": (b"[-Infinity]", "constant -Infinity"),
    "overflow": (b"[1e999]", "number 1e999"),
    "negative overflow": (b"[-1e999]", "number -1e999"),
    "depth": (b"[" * 33 + b"]" * 33, "nesting deeper than 32"),
    "open depth": (b'{"a":' * 200_000, "nesting deeper than 32"),
    "digits": (b"7" * 5000, "5000 digits"),
    "size": (b" " * (MAX_BYTES + 1), "bytes"),
    "trailing garbage": (b'{"a": 1} x', "Extra data"),
    "trailing comma": (b"[1,]", "line 1"),
    "single quotes": (b"{'a': 1}", "line 1"),
    "comment": (b"// no\n{}", "line 1"),
    "empty": (b"", "line 1"),
    "latin-1": (b'{"a": "\xe9"}', "not UTF-8 at 7"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "surrogate"),
    "unfinished string": (b'{"a": "b', "line 1"),
    "control character": (b'["a\x00b"]', "line 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_json_refuses(name):
    content, message = BAD[name]
    with pytest.raises(CardiogenError, match=message) as caught:
        parse_json(content, "model.json", code="M07")
    assert caught.value.code == "M07"
    assert caught.value.exit_code == 4


def test_json_depth_counts_no_brackets_in_strings():
    text = b'["' + b"[" * 500 + b'\\"' + b"{" * 500 + b'"]'
    assert len(parse_json(text, "x", code="M07")[0]) == 1001
    assert parse_json(b"[" * 32 + b"]" * 32, "x", code="M07")


def test_json_many_keys_take_no_quadratic_time():
    # 60,000 keys: half a minute if every key were compared with every other one.
    text = "{" + ",".join(f'"{i:x}":0' for i in range(60_000)) + "}"
    assert len(parse_json(text.encode(), "x", code="M07")) == 60_000


def test_small_files_are_bounded(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{}")
    assert read_small(path, code="M07") == b"{}"
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(CardiogenError, match=f"CG-M07 .*at most {MAX_BYTES} bytes"):
        read_small(path, code="M07")
    with pytest.raises(CardiogenError, match="CG-C47"):
        read_small(tmp_path / "none.json", code="C36")
