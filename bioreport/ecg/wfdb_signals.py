"""Signal files of WFDB records: any stretch of frames, decoded to whole numbers.

Formats: signal(5) of the WFDB Applications Guide (Moody et al.). Only the frames asked for are read, so a
record of a day needs no more memory than one of ten seconds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bioreport.ecg.wfdb_header import DAMAGED
from bioreport.edf_checks import check_not_text
from bioreport.errors import InputError

# storage format -> samples and bytes of a block, the value that means "no sample"
_BLOCKS: dict[int, tuple[int, int, int]] = {
    80: (1, 1, -(1 << 7)),
    16: (1, 2, -(1 << 15)), 61: (1, 2, -(1 << 15)), 160: (1, 2, -(1 << 15)),
    24: (1, 3, -(1 << 23)), 32: (1, 4, -(1 << 31)),
    212: (2, 3, -(1 << 11)), 310: (3, 4, -(1 << 9)), 311: (3, 4, -(1 << 9)),
}  # fmt: skip
# FLAC: bits of a sample
_FLAC: dict[int, int] = {508: 8, 516: 16, 524: 24}
# bytes of a last block with one or two samples
_REMAINDER = {(212, 1): 2, (310, 1): 2, (310, 2): 4, (311, 1): 2, (311, 2): 3}
# storage format -> type number of MATLAB level 4 files with the same samples
_MAT_TYPES = {16: 30, 32: 20, 80: 50}
_MAT_HEADER_BYTES = 20


@dataclass(frozen=True)
class SignalFile:
    """The signals of one file, interleaved frame by frame.

    Attributes
    ----------
    path : Path
    storage : int
        WFDB's number of the format.
    offset : int
        Where the first sample is, in bytes; in samples for FLAC.
    widths : tuple of int
        Samples of each signal in a frame.
    frames : int or None
        Stated length.
    """

    path: Path
    storage: int
    offset: int
    widths: tuple[int, ...]
    frames: int | None

    @property
    def invalid(self) -> int:
        """The digital value that means "no sample"."""
        if self.storage in _FLAC:
            return -(1 << _FLAC[self.storage] - 1)
        return _BLOCKS[self.storage][2]

    @property
    def samples(self) -> int:
        """Samples in a frame."""
        return sum(self.widths)

    def check(self, header: Path) -> list[str]:
        """Compare the file with what the header says of it.

        Returns
        -------
        list of str
            Warnings.

        Raises
        ------
        InputError
            The format is not known, the file absent, too short, or of another kind.
        """
        if self.storage not in _BLOCKS and self.storage not in _FLAC:
            known = ", ".join(map(str, sorted((*_BLOCKS, *_FLAC))))
            raise InputError(
                header,
                f"names storage format {self.storage}, which is not read",
                f"convert the record to {known}",
            )
        try:
            if not self.path.is_file():
                raise InputError(
                    header, f"names the signal file {self.path.name}, which is not beside it",
                    "put all files of the ECG record into one folder",
                )  # fmt: skip
            size = self.path.stat().st_size
            if self.storage in _FLAC:
                held = self._check_flac(header)
            else:
                if self.path.suffix.lower() == ".mat":
                    self._check_mat(header)
                held = self._held(size)
        except OSError as error:
            raise self._unreadable(error) from error
        if self.frames is None:
            if held < 1:
                raise InputError(self.path, "holds no samples", DAMAGED)
            return []
        if held < self.frames:
            raise InputError(
                self.path, f"holds {max(held, 0)} samples a lead where its header says {self.frames}", DAMAGED
            )
        if self.storage not in _FLAC and held > self.frames:
            check_not_text(self.path, self.offset, size)
        if held > self.frames:
            return [
                f"The signal file is {held - self.frames} samples a lead longer than its header says; "
                "they were not read."
            ]
        return []

    def length(self) -> int:
        """Frames: as stated, else as many as the file holds."""
        if self.frames is not None:
            return self.frames
        if self.storage in _FLAC:
            with self._flac() as flac:
                return (len(flac) - self.offset) // self.widths[0]
        return self._held(self.path.stat().st_size)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop`, int32 [frames, samples of a frame].

        Raises
        ------
        InputError
            The file has become shorter, cannot be read further, or is damaged inside.
        """
        count = (stop - start) * self.samples
        try:
            if self.storage in _FLAC:
                values = self._read_flac(start, stop)
            else:
                values = self._read_blocks(start * self.samples, count)
        except OSError as error:
            raise self._unreadable(error) from error
        if len(values) < count:
            raise InputError(self.path, "became shorter while it was read", "run again when it is complete")
        return values.reshape(stop - start, self.samples)

    def _held(self, size: int) -> int:
        """Whole frames in a file of this size."""
        samples, width, _ = _BLOCKS[self.storage]
        blocks, rest = divmod(max(size - self.offset, 0), width)
        for part in range(samples - 1, 0, -1):
            if rest >= _REMAINDER[self.storage, part]:
                return (blocks * samples + part) // self.samples
        return blocks * samples // self.samples

    def _read_blocks(self, first: int, count: int) -> np.ndarray:
        samples, width, _ = _BLOCKS[self.storage]
        block, skipped = divmod(first, samples)
        n_blocks = -(-(skipped + count) // samples)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + block * width)
            data = file.read(n_blocks * width)
        rest = len(data) % width
        held = len(data) // width * samples
        held += next((p for p in range(samples - 1, 0, -1) if rest >= _REMAINDER[self.storage, p]), 0)
        padded = data + b"\0" * (-len(data) % width)
        return _decode(self.storage, np.frombuffer(padded, np.uint8))[:held][skipped : skipped + count]

    def _check_mat(self, header: Path) -> None:
        """A MATLAB file is read as what it holds behind its header: that must be the described samples.

        MATLAB level 4: five 32-bit numbers (type, rows, columns, imaginary, length of the name), the name.
        """
        with self.path.open("rb") as file:
            kind, rows, columns, imaginary, name = np.frombuffer(
                file.read(_MAT_HEADER_BYTES).ljust(20), "<i4"
            )
        fits = imaginary == 0 and _MAT_HEADER_BYTES + name == self.offset and rows == self.samples
        if not fits or kind != _MAT_TYPES.get(self.storage):
            raise InputError(
                self.path, "is a MATLAB file, but not of samples as its header describes them",
                f"write it anew (level 4, one row a lead), with its header {header.name}",
            )  # fmt: skip
        if self.frames is not None and columns != self.frames:
            raise InputError(
                self.path, f"holds {columns} samples a lead where its header says {self.frames}", DAMAGED
            )

    def _flac(self) -> Any:
        try:
            import soundfile
        except (ImportError, OSError) as error:
            raise InputError(
                self.path, "is FLAC, for which the package soundfile is missing", "pip install soundfile"
            ) from error
        try:
            return soundfile.SoundFile(self.path)
        except soundfile.LibsndfileError as error:
            raise InputError(self.path, "is not the FLAC file that its header says", DAMAGED) from error

    def _check_flac(self, header: Path) -> int:
        bits = _FLAC[self.storage]
        with self._flac() as flac:
            if flac.format != "FLAC" or flac.subtype != ("PCM_S8" if bits == 8 else f"PCM_{bits}"):
                raise InputError(self.path, f"is no FLAC file of {bits} bits as its header says", DAMAGED)
            if flac.channels != len(self.widths) or len(set(self.widths)) > 1:
                raise InputError(
                    header, f"describes {len(self.widths)} signals in a FLAC file of {flac.channels}", DAMAGED
                )
            return (len(flac) - self.offset) // self.widths[0]

    def _read_flac(self, start: int, stop: int) -> np.ndarray:
        width = self.widths[0]
        import soundfile

        with self._flac() as flac:
            try:
                flac.seek(self.offset + start * width)
                # 32 bits, the sample's own in the upper ones
                data = flac.read((stop - start) * width, dtype="int32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise InputError(self.path, "is damaged inside (FLAC)", DAMAGED) from error
        if len(data) < (stop - start) * width:
            raise InputError(self.path, "is damaged inside (FLAC)", DAMAGED)
        data >>= 32 - _FLAC[self.storage]
        return data.reshape(-1, width, len(self.widths)).transpose(0, 2, 1).reshape(-1)

    def _unreadable(self, error: OSError) -> InputError:
        reason = error.strerror or "input/output error"
        return InputError(self.path, f"cannot be read ({reason})", "check its permissions and the disk")


def _decode(storage: int, data: np.ndarray) -> np.ndarray:
    """Bytes of whole blocks to samples, int32."""
    if storage == 80:
        return data.astype(np.int32) - 128
    if storage in (16, 61):
        return data.view("<i2" if storage == 16 else ">i2").astype(np.int32)
    if storage == 160:
        return data.view("<u2").astype(np.int32) - 32768
    if storage == 32:
        return data.view("<i4").astype(np.int32)
    if storage == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = data.reshape(-1, 3)
        return (wide.view("<i4")[:, 0] >> 8).astype(np.int32)
    if storage == 212:
        low, middle, high = data.reshape(-1, 3).T.astype(np.int32)
        pairs = np.stack([low | (middle & 0x0F) << 8, high | (middle & 0xF0) << 4], axis=1)
        return _signed(pairs, 12)
    if storage == 310:
        first, second = data.view("<u2").reshape(-1, 2).T.astype(np.int32)
        third = first >> 11 | second >> 11 << 5
        return _signed(np.stack([first >> 1 & 0x3FF, second >> 1 & 0x3FF, third], axis=1), 10)
    word = data.view("<u4").astype(np.int64)
    return _signed(np.stack([word & 0x3FF, word >> 10 & 0x3FF, word >> 20 & 0x3FF], axis=1), 10)


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    sign = 1 << bits - 1
    return ((values.reshape(-1) ^ sign) - sign).astype(np.int32)
