"""Sample tables that cannot be true are found before libav builds an index of them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from makers import make_clip

from pipeline.media.tables import more_samples_than_bytes


def box(kind: bytes, body: bytes, *, size: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(body) if size is None else size) + kind + body


def a_movie(each: int, count: int) -> bytes:
    """A movie with the tables of one track, and 100 bytes of media."""
    body = box(b"stsz", struct.pack(">III", 0, each, count))
    for kind in (b"stbl", b"minf", b"mdia", b"trak"):
        body = box(kind, body)
    return box(b"ftyp", b"isom") + box(b"mdat", bytes(100)) + box(b"moov", box(b"mvhd", bytes(100)) + body)


def old_sound(count: int, *, packet: int, size: int, ticks: tuple[int, int] = (1, 1), kind: bytes = b"soun") -> bytes:
    """A movie of 100 bytes with sound in packets of so many samples and bytes: its table counts samples (QuickTime)."""
    entry = struct.pack(">6xHHHIHHhHI", 1, 1, 0, 0, 1, 16, -2, 0, 44100 << 16)
    entry += struct.pack(">IIII", packet, size, size, 2)
    listed, lasts = ticks
    table = box(b"stsz", struct.pack(">III", 0, 1, count))
    table += box(b"stts", struct.pack(">IIII", 0, listed, count, lasts))
    table += box(b"stsd", struct.pack(">II", 0, 1) + box(b"ima4", entry))
    handler = box(b"hdlr", bytes(4) + b"mhlr" + kind + bytes(12))
    reference = box(b"hdlr", bytes(4) + b"dhlralis" + bytes(12))
    media = handler + box(b"minf", reference + box(b"stbl", table))
    # Another track after it, so that each is judged by its own tables.
    tracks = box(b"trak", box(b"mdia", media)) + box(b"trak", box(b"tkhd", bytes(80)))
    movie = box(b"ftyp", b"qt  ") + box(b"moov", tracks)
    return movie + box(b"mdat", bytes(100))


def fragments(*runs: tuple[int, int]) -> bytes:
    """A movie of fragments, each with a run: (flags, samples)."""
    made = [
        box(b"moof", box(b"traf", box(b"tfhd", bytes(8)) + box(b"trun", struct.pack(">II", flags, count) + bytes(40))))
        for flags, count in runs
    ]
    return box(b"ftyp", b"isom") + box(b"moov", box(b"trak", bytes(8))) + b"".join(made) + box(b"mdat", bytes(100))


def judged(content: bytes) -> bool:
    return more_samples_than_bytes(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("each", "count", "lies"),
    [(1, 50, False), (4, 25, False), (0, 0, False), (1, 60_000_000, True), (0xFFFFFFFF, 2, True), (0, 1 << 31, False)],
)
def test_samples_that_have_no_room_in_the_file_are_a_lie(each: int, count: int, lies: bool) -> None:
    assert judged(a_movie(each, count)) is lies


@pytest.mark.parametrize(
    ("movie", "lies"),
    [
        # 340 bytes are there for 640 samples, 64 in 34 bytes.
        (old_sound(640, packet=64, size=34), False),
        (old_sound(64_000, packet=64, size=34), True),
        # Less than a byte each is believed, but not a thousand in one.
        (old_sound(1_000_000, packet=1_000_000, size=0), True),
        (old_sound(0xFFFFFFFF, packet=0xFFFFFFFF, size=1), True),
        # libav takes no packets here, but every sample.
        (old_sound(640, packet=64, size=34, kind=b"vide"), True),
        (old_sound(640, packet=64, size=34, ticks=(1, 2)), True),
        (old_sound(640, packet=64, size=34, ticks=(2, 1)), True),
        (old_sound(640, packet=0, size=34), True),
    ],
)
def test_old_sound_counts_samples_of_which_many_are_in_a_byte(movie: bytes, lies: bool) -> None:
    assert judged(movie) is lies


@pytest.mark.parametrize(
    ("movie", "lies"),
    [
        (fragments((0, 50), (0, 50)), False),
        (fragments((0, 40_000_000)), True),
        (fragments(*[(0, 60)] * 10), False),
        (fragments(*[(0, 200)] * 10), True),
        # What is written of each sample has to be there, and libav stops where it is not.
        (fragments((0x200, 40_000_000)), False),
    ],
)
def test_runs_of_which_nothing_is_written_are_believed_up_to_a_sample_a_byte(movie: bytes, lies: bool) -> None:
    assert judged(movie) is lies


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"RIFF" + bytes(100),
        box(b"moov", b"", size=0xFFFFFFFF),
        box(b"moov", b"", size=1) + b"\xff" * 8,
        box(b"moov", b"", size=0),
        box(b"stsz", bytes(3)),
        box(b"free", b"", size=4),
        (struct.pack(">I", 8) + b"moov") * 30_000,
    ],
)
def test_what_makes_no_sense_is_left_to_libav(content: bytes) -> None:
    assert not judged(content)


def test_nothing_hides_behind_a_damaged_box() -> None:
    broken = box(b"trak", box(b"free", bytes(20), size=4))
    bomb = box(b"stsz", struct.pack(">III", 0, 1, 60_000_000))
    for kind in (b"stbl", b"minf", b"mdia", b"trak"):
        bomb = box(kind, bomb)

    for before in (broken, box(b"\xa9nam", b"A name")):
        assert judged(box(b"ftyp", b"isom") + box(b"moov", before + bomb))


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_an_honest_file_is_honest(suffix: str, tmp_path: Path) -> None:
    """Plain sound has samples of one size."""
    clip = make_clip(tmp_path / f"clip.{suffix}", seconds=1, audio="pcm_s16le" if suffix == "mov" else "aac")

    assert not judged(clip.read_bytes())
