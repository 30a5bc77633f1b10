"""JSON without its traps: no duplicate keys, no NaN, bounded size, depth and digits."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import NoReturn

from cardiogen.base.errors import CardiogenError
from cardiogen.base.files import read_bounded

MAX_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_DIGITS = 400


def read_small(path: Path, *, code: str) -> bytes:
    """Return the bytes of a JSON or TOML file of at most 1 MiB.

    Raises:
        CardiogenError: ``code`` above the limit, 47 of its family if unreadable.
    """
    try:
        return read_bounded(path, limit=MAX_BYTES, family=code[0])
    except CardiogenError as error:
        if error.code != "R02":
            raise
        # A description that large is a fault of the file, not a want of memory.
        raise CardiogenError(
            code, path, found=error.found, expected=error.expected,
            remedy="the file as cardiogen wrote it",
        ) from error  # fmt: skip


def parse_json(content: bytes, where: str | Path, *, code: str) -> object:
    """Parse JSON text.

    Args:
        content: bytes of the file, UTF-8.
        where: path for messages.
        code: what the error is called, ``M07`` in models and ``C36`` beside data.

    Raises:
        CardiogenError: ``code`` for anything that strict JSON does not hold.
    """

    def refuse(found: str, expected: str) -> NoReturn:
        raise CardiogenError(
            code, where, found=found, expected=expected, remedy="the file as cardiogen wrote it"
        )

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        double = [name for name, times in Counter(n for n, _ in pairs).items() if times > 1]
        if double:
            refuse(f"key {min(double)!r} twice", "every key once")
        return dict(pairs)

    def integer(text: str) -> int:
        if len(text) > _MAX_DIGITS:
            refuse(f"an integer of {len(text)} digits", f"at most {_MAX_DIGITS} digits")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            refuse(f"number {text}", "numbers that a double can hold")
        return value

    if len(content) > MAX_BYTES:
        refuse(f"{len(content)} bytes", f"at most {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8")
        if _depth(text) > _MAX_DEPTH:
            refuse(f"nesting deeper than {_MAX_DEPTH}", f"nesting of at most {_MAX_DEPTH}")
        found = json.loads(
            text, object_pairs_hook=unique, parse_int=integer, parse_float=real,
            parse_constant=lambda name: refuse(f"constant {name}", "finite numbers"),
        )  # fmt: skip
        # Half a surrogate pair is text that no file can be written with.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
        return found
    except UnicodeEncodeError:
        refuse("half a surrogate pair", "text that UTF-8 can hold")
    except UnicodeDecodeError as error:
        refuse(f"a byte that is not UTF-8 at {error.start}", "UTF-8 text")
    except json.JSONDecodeError as error:
        refuse(f"{error.msg} in line {error.lineno}", "valid JSON")


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside of strings, without recursion."""
    depth = deepest = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest
