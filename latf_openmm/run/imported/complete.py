"""Whether every frame of a file is there, and has positions; MDTraj's readers do not say."""

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import scipy.io

from latf_openmm.errors import DataError

_XTC, _XTC_LONG, _TRR = 1995, 2023, 1993
"""Numbers that frames begin with: XTC, XTC of many atoms, TRR."""
_RAW_ATOMS = 9
"""XTC files do not compress positions of so few atoms."""


def check_frames(path: Path) -> None:
    """Raise `DataError` where the last frame of an XTC or TRR file is cut off, or frames have no positions."""
    headers = {".xtc": _xtc_frames, ".trr": _trr_frames}.get(path.suffix.lower())
    if headers is None:
        return
    size, n_complete = path.stat().st_size, 0
    with path.open("rb") as file:
        try:
            for end in headers(file, path):
                if end > size:
                    raise _cut(path, n_complete)
                n_complete += 1
        except struct.error:  # not even its header is there
            if file.seek(0, os.SEEK_END) and n_complete:
                raise _cut(path, n_complete) from None


def check_number(path: Path, n_frames: int) -> None:
    """Raise `DataError` where the header of a DCD file has one frame more than can be read."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"CORD" and n_frames + 1 in (int.from_bytes(start[8:12], o) for o in ("little", "big")):
        raise DataError(
            f"{path}: {n_frames} frames can be read, its header says {n_frames + 1}: the last is cut off"
        )


def check_netcdf(path: Path) -> None:
    """Raise `DataError` where a NetCDF file of Amber lacks its end.

    MDTraj does not read it then, or reads on where the package netCDF4 is installed.
    """
    with path.open("rb") as file:
        if file.read(3) != b"CDF":
            return
        try:
            with scipy.io.netcdf_file(str(path), mmap=True):  # of its header alone
                return
        except (ValueError, TypeError, IndexError, KeyError, OSError):
            file.seek(0)
            padded = _Padded(file.read())
    try:
        with scipy.io.netcdf_file(padded, mmap=False) as netcdf:
            frames = int(netcdf.variables["coordinates"].shape[0])
    except (KeyError, ValueError, TypeError, IndexError):  # MDTraj says what is wrong
        return
    if padded.missing and frames:
        record = padded.longest // frames
        raise _cut(path, max(0, frames - -(-padded.missing // record)))


class _Padded(io.BytesIO):
    """A file that goes on with zeros after its end; `missing` of them were read, `longest` bytes at a time."""

    missing = longest = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and size > len(data):
            self.missing += size - len(data)
            data += bytes(size - len(data))
        self.longest = max(self.longest, len(data))
        return data


def _cut(path: Path, n_complete: int) -> DataError:
    return DataError(
        f"{path}: its last frame is incomplete, as after a job was killed; {n_complete} frames are whole: "
        "write those to a new file"
    )


def _xtc_frames(file: BinaryIO, path: Path) -> Iterator[int]:
    """Ends of the frames of an XTC file [bytes]; none after what is no frame."""
    start = 0
    while header := file.read(56):
        magic, n_atoms = struct.unpack(">2i", header[:8])
        (again,) = struct.unpack(">i", header[52:56])
        if magic not in (_XTC, _XTC_LONG) or n_atoms != again:
            return
        if n_atoms <= _RAW_ATOMS:
            end = start + 56 + 12 * n_atoms
        else:
            long = magic == _XTC_LONG
            (n_bytes,) = struct.unpack(">q" if long else ">i", file.read(40 if long else 36)[32:])
            end = start + (96 if long else 92) + -(-n_bytes // 4) * 4
        yield end
        start = file.seek(end)


def _trr_frames(file: BinaryIO, path: Path) -> Iterator[int]:
    """Ends of the frames of a TRR file [bytes]; `DataError` where one has no positions."""
    start = frame = 0
    while header := file.read(84):
        sizes = struct.unpack(">13i", header[24:76])
        if struct.unpack(">i", header[:4])[0] != _TRR:
            return
        if sizes[7] == 0:
            raise DataError(
                f"{path}: frame {frame} has no positions (velocities or forces only, as with nstxout above nstvout or "
                "nstfout); expected positions in every frame: write those to a new file, for example an XTC"
            )
        n_atoms, box = sizes[10], sizes[2]
        double = sizes[7] == 24 * n_atoms or box == 72
        end = start + 76 + (16 if double else 8) + sum(sizes[:10])
        yield end
        start, frame = file.seek(end), frame + 1
