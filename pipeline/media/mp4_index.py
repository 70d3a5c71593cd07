"""The index of a progressive MP4: what is where, box by box (ISO/IEC 14496-12). Everything in `moov` is written here.

No dates, no names of programs or machines: the same samples give the same bytes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from pipeline.media.boxes import BoxError, Sample
from pipeline.media.languages import SHORT, UNKNOWN

MOST_32 = 1 << 32
"""Offsets and times from here on need boxes of 64 bits."""
FILE_TYPE = struct.pack(">I4s4sI", 32, b"ftyp", b"isom", 512) + b"isomiso2avc1mp41"
"""Brands that every player has known for twenty years, QuickTime among them."""

_LONG = {short: long for long, short in SHORT.items()}
"""ISO 639-2/T by the two-letter code."""
_UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_HANDLERS = {
    "video": (b"vide", "VideoHandler"),
    "audio": (b"soun", "SoundHandler"),
    # What QuickTime and iOS offer as subtitles.
    "text": (b"sbtl", "SubtitleHandler"),
}
_IN_MOVIE, _ENABLED = 2, 1
_GROUPS = {"video": 0, "audio": 1, "text": 2}
"""Of the tracks of a group a player shows one."""


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


@dataclass
class Runs:
    """Equal values in a row, as (how many, value)."""

    values: list[list[int]] = field(default_factory=list)

    def add(self, value: int) -> None:
        if self.values and self.values[-1][1] == value:
            self.values[-1][0] += 1
        else:
            self.values.append([1, value])


@dataclass
class SampleTable:
    """The samples of one track, in decode order, and the chunks in which they lie.

    Twelve bytes a sample: two million of them (a day of sound, twelve hours of picture) are 30 MB.
    """

    sizes: array[int] = field(default_factory=lambda: array("I"))
    shifts: array[int] = field(default_factory=lambda: array("i"))
    """Presentation time less decode time, ticks."""
    keys: array[int] = field(default_factory=lambda: array("I"))
    """Numbers, from 1, of the samples that a player may begin with."""
    steps: Runs = field(default_factory=Runs)
    """Ticks from one decode time to the next."""
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    """Of the chunks, in the file."""
    counts: array[int] = field(default_factory=lambda: array("I"))
    """Samples of the chunks."""
    first: int | None = None
    """Decode time of the first sample."""
    begins: int = 0
    """First presentation time …"""
    ends: int = 0
    """… and the end of the last."""
    _last: Sample | None = None

    def add(self, sample: Sample, size: int) -> None:
        """The next sample of the chunk that was begun last; `size` bytes of it lie in the file."""
        if self._last is None:
            self.first, self.begins = sample.decode, sample.tick
        else:
            self._step(sample.decode - self._last.decode)
        self._last = sample
        self.sizes.append(size)
        self.shifts.append(sample.tick - sample.decode)
        if sample.sync:
            self.keys.append(len(self.sizes))
        self.counts[-1] += 1
        self.begins = min(self.begins, sample.tick)
        self.ends = max(self.ends, sample.tick + sample.duration)

    def chunk(self, offset: int) -> None:
        """The samples that come now lie at `offset`."""
        self.offsets.append(offset)
        self.counts.append(0)

    @property
    def lift(self) -> int:
        """Ticks that every presentation time is moved by, so that none is before its decode time; the edit list takes
        them back. Old players know no negative composition offset."""
        return max(0, -min(self.shifts, default=0))

    def _step(self, ticks: int) -> None:
        if ticks <= 0:
            raise BoxError(f"a sample is decoded {-ticks} ticks before the one before it")
        self.steps.add(ticks)

    def boxes(self, description: bytes, moved: int) -> bytes:
        """`stbl`, where all chunks lie `moved` bytes further back than they were said to be."""
        if self._last is None:
            raise BoxError("a track without samples")
        steps = Runs([list(run) for run in self.steps.values])
        steps.add(self._last.duration)
        parts = [description, _table(b"stts", steps.values)]
        if any(self.shifts):
            shifts, lift = Runs(), self.lift
            for shift in self.shifts:
                shifts.add(shift + lift)
            parts.append(_table(b"ctts", shifts.values))
        if len(self.keys) < len(self.sizes):
            parts.append(full_box(b"stss", 0, 0, struct.pack(">I", len(self.keys)), _big(self.keys)))
        parts.append(_table(b"stsc", self._groups()))
        parts.append(full_box(b"stsz", 0, 0, struct.pack(">II", 0, len(self.sizes)), _big(self.sizes)))
        return box(b"stbl", *parts, self._chunk_offsets(moved))

    def _groups(self) -> list[list[int]]:
        """Rows of `stsc`: from which chunk on each has how many samples, of the only description."""
        rows: list[list[int]] = []
        for number, count in enumerate(self.counts, start=1):
            if not rows or rows[-1][1] != count:
                rows.append([number, count, 1])
        return rows

    def _chunk_offsets(self, moved: int) -> bytes:
        offsets = [offset + moved for offset in self.offsets]
        wide = offsets[-1] >= MOST_32
        packed = struct.pack(f">{len(offsets)}{'Q' if wide else 'I'}", *offsets)
        return full_box(b"co64" if wide else b"stco", 0, 0, struct.pack(">I", len(offsets)), packed)


@dataclass(frozen=True, kw_only=True)
class IndexedTrack:
    """One track of the file."""

    kind: Literal["video", "audio", "text"]
    timescale: int
    description: bytes
    """Its `stsd` box."""
    table: SampleTable
    start: int
    """Presentation time, ticks, at which the file begins."""
    end: int
    """… and at which it ends; what the track has beyond is not played."""
    language: str = "und"
    """BCP 47."""
    name: str = ""
    enabled: bool = True
    place: bytes = _UNITY + bytes(8)
    """Matrix, width and height of `tkhd`: where it is shown."""


def index(tracks: Sequence[IndexedTrack], timescale: int, moved: int = 0) -> bytes:
    """The `moov` box. `timescale`: of the edit lists, and of all durations."""
    traks = [_trak(number, track, timescale, moved) for number, track in enumerate(tracks, start=1)]
    duration = max(sum(edit[0] for edit in _edits(track, timescale)) for track in tracks)
    rest = struct.pack(">IHH", 1 << 16, 1 << 8, 0) + bytes(8) + _UNITY + bytes(24)
    header = _timed(b"mvhd", 0, struct.pack(">I", timescale), duration, rest, struct.pack(">I", len(tracks) + 1))
    return box(b"moov", header, *traks)


def _trak(number: int, track: IndexedTrack, timescale: int, moved: int) -> bytes:
    edits = _edits(track, timescale)
    duration = sum(edit[0] for edit in edits)
    flags = _IN_MOVIE | (_ENABLED if track.enabled else 0)
    volume = 1 << 8 if track.kind == "audio" else 0
    place = bytes(8) + struct.pack(">HHHH", 0, _GROUPS[track.kind], volume, 0) + track.place
    return box(
        b"trak",
        _timed(b"tkhd", flags, struct.pack(">II", number, 0), duration, place),
        box(b"edts", _edit_list(edits)),
        _mdia(track, moved),
    )


def _edits(track: IndexedTrack, timescale: int) -> list[tuple[int, int]]:
    """(ticks of the file, first tick of the media; -1: nothing is there yet): the sound may begin within its first
    frame, and the picture begins later than its first decode time."""
    table = track.table
    begin, end = max(track.start, table.begins), min(track.end, table.ends)
    waits = round(Fraction((begin - track.start) * timescale, track.timescale))
    lasts = round(Fraction((end - track.start) * timescale, track.timescale)) - waits
    media = begin - (table.first or 0) + table.lift
    return [*([(waits, -1)] if waits else []), (max(lasts, 0), media)]


def _edit_list(edits: Sequence[tuple[int, int]]) -> bytes:
    wide = any(value >= MOST_32 // 2 for edit in edits for value in edit)
    rows = (struct.pack(">QqI" if wide else ">IiI", ticks, media, 1 << 16) for ticks, media in edits)
    return full_box(b"elst", int(wide), 0, struct.pack(">I", len(edits)), *rows)


def _mdia(track: IndexedTrack, moved: int) -> bytes:
    table = track.table
    duration = table.ends - (table.first or 0) + table.lift
    code, extended = _language(track.language)
    # Players show the handler's name as that of the track. Where QuickTime has names (`udta`), libav warns.
    kind, usual = _HANDLERS[track.kind]
    name = (track.name or usual).encode() + b"\0"
    media_header = {
        "video": full_box(b"vmhd", 0, 1, bytes(8)),
        "audio": full_box(b"smhd", 0, 0, bytes(4)),
        "text": full_box(b"nmhd", 0, 0),
    }
    here = full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 1))
    return box(
        b"mdia",
        _timed(b"mdhd", 0, struct.pack(">I", track.timescale), duration, struct.pack(">HH", code, 0)),
        full_box(b"hdlr", 0, 0, bytes(4), kind, bytes(12), name),
        extended,
        box(b"minf", media_header[track.kind], box(b"dinf", here), table.boxes(track.description, moved)),
    )


def _timed(kind: bytes, flags: int, before: bytes, duration: int, *after: bytes) -> bytes:
    """A header box: times of creation and of change (none), `before`, the duration, `after`."""
    wide = duration >= MOST_32
    times, packed = (bytes(16), ">Q") if wide else (bytes(8), ">I")
    return full_box(kind, int(wide), flags, times, before, struct.pack(packed, duration), *after)


def _language(tag: str) -> tuple[int, bytes]:
    """(the code of `mdhd`, three letters of five bits; the box with the whole tag, where three letters are too few)."""
    primary = tag.partition("-")[0]
    long = _LONG.get(primary, primary)
    if len(long) != 3 or not (long.isascii() and long.isalpha()):
        long = UNKNOWN
    code = 0
    for letter in long.lower():
        code = code << 5 | ord(letter) - 0x60
    whole = tag == UNKNOWN or (long != UNKNOWN and tag == primary)
    return code, b"" if whole else full_box(b"elng", 0, 0, tag.encode() + b"\0")


def _table(kind: bytes, rows: Sequence[Sequence[int]]) -> bytes:
    flat = [value for row in rows for value in row]
    return full_box(kind, 0, 0, struct.pack(f">I{len(flat)}I", len(rows), *flat))


def _big(values: Iterable[int]) -> bytes:
    listed = list(values)
    return struct.pack(f">{len(listed)}I", *listed)
