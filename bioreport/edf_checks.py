"""Signs that an EDF file is not what its header says."""

import re
from pathlib import Path

from bioreport.errors import InputError

_BLOCK = 1 << 16
_ONSET = re.compile(rb"^([+-]\d+(?:\.\d*)?)(?:\x15[\d.]*)?\x14")


def check_not_text(path: Path, header_bytes: int, size: int) -> None:
    """Refuse a file that was converted as text on its way.

    Two conversions are known from damaged copies: bytes above 127 re-encoded as UTF-8 (binary data is valid
    UTF-8 with such bytes only after that), and line ends turned into CR LF. Both move every later sample.

    Raises
    ------
    InputError
        The samples bear the marks of a text conversion.
    """
    blocks = []
    with path.open("rb") as file:
        for start in sorted({header_bytes, max(header_bytes, size // 2), max(header_bytes, size - _BLOCK)}):
            file.seek(start)
            blocks.append(file.read(_BLOCK))
    if any(_is_utf8(block) for block in blocks):
        problem = "was converted to UTF-8 text on its way, so its samples are lost"
    elif any(_has_only_crlf(block) for block in blocks):
        problem = "had its line ends converted on its way, so its samples are shifted"
    else:
        return
    raise InputError(path, problem, "copy the original again in binary mode")


def _is_utf8(block: bytes) -> bool:
    high = sum(byte > 127 for byte in block)
    if high < 64 or len(set(block)) < 8:
        return False
    # a block may begin and end inside a character
    start = next((i for i in range(4) if block[i] & 0xC0 != 0x80), 4)
    for trimmed in range(4):
        try:
            block[start : len(block) - trimmed].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def _has_only_crlf(block: bytes) -> bool:
    newlines = block.count(b"\n")
    return newlines >= 20 and block.count(b"\r\n") == newlines


def excess_records(path: Path, records: int, rest: int, record_bytes: int) -> None:
    """Refuse a file much longer than its header says, unless the rest is whole records or a tail.

    Raises
    ------
    InputError
        More than one record too long, and not by whole records: the layout is not the stated one.
    """
    if records >= 1 and rest:
        raise InputError(
            path,
            f"is {records * record_bytes + rest} bytes longer than its header says",
            "copy the original again in binary mode",
        )


def tal_onset(start: bytes) -> float | None:
    """Onset of a data record in s from the first bytes of its annotation channel, None if it states none."""
    match = _ONSET.match(start)
    return None if match is None else float(match[1])
