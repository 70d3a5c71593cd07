"""A clock that wraps around, starts anew or is wrong once: one clock comes out, and picture and sound stay together."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from makers import beep_starts, flashes, make_clip, read_frame_number
from running import Clip, opened

from pipeline.media.clock import JoinedClock
from pipeline.media.sources import open_source, packets

WRAP = Fraction(1 << 33, 90_000)


def recorded(path: Path, *, start: Fraction | float = 0, seconds: float = 2, **changes: Any) -> Path:
    """A recording whose clock begins at `start`."""
    return make_clip(
        path, seconds=Fraction(seconds), size=(160, 120), video_start=start, audio_start=start, gop=25, **changes
    )


def joined(path: Path, *parts: Path, head: int = 0) -> Path:
    """The files end to end; all but the first without their first `head` bytes."""
    first, *others = [part.read_bytes() for part in parts]
    path.write_bytes(first + b"".join(other[head:] for other in others))
    return path


def flashes_and_beeps(clip: Clip, root: Path) -> tuple[list[float], list[float]]:
    _, (made,) = clip.transcode(root)
    bright = [flashes(frame) for frame in made.frames()]
    begun = [n for n, (before, now) in enumerate(zip([False, *bright], bright, strict=False)) if now and not before]
    return [float(n / clip.timeline.rate) for n in begun], beep_starts(clip.audio(root).sound()[0], 48_000)


def numbers(clip: Clip, root: Path) -> list[int]:
    _, (made,) = clip.transcode(root)
    return [read_frame_number(frame) for frame in made.frames()]


def assert_joined(clip: Clip, root: Path, *, seconds: float, flashes: int) -> None:
    """Nothing is lost, nothing is held, and every beep comes with its flash."""
    assert clip.timeline.duration == pytest.approx(seconds, abs=0.25)
    flashed, beeped = flashes_and_beeps(clip, root)
    assert len(flashed) == flashes
    assert beeped == pytest.approx(flashed, abs=0.062)  # the grid of a variable rate shows a frame up to 40 ms later


@pytest.mark.parametrize("start", [Fraction(954_432, 10), Fraction(954_404, 10)], ids=float)
def test_a_clock_that_wraps_around_goes_on(tmp_path: Path, start: Fraction) -> None:
    clip = opened(recorded(tmp_path / "clip.ts", start=start, seconds=4))

    assert clip.media.video is not None
    assert (clip.media.video.frames, clip.media.video.constant) == (100, True)
    assert "timestamp_wrap" in clip.media.notes
    flashed, beeped = flashes_and_beeps(clip, tmp_path)
    assert len(flashed) == 4
    assert beeped == pytest.approx(flashed, abs=0.0235)


@pytest.mark.parametrize(
    "starts",
    [(50, 0), (0, 0), (0, 20_000), (50, 0, 20_000, 0), (float(WRAP) - 1, 20_000), (0, float(WRAP) - 1)],
    ids=lambda starts: ">".join(f"{start:.0f}" for start in starts),
)
def test_parts_that_a_recorder_joined_are_one(tmp_path: Path, starts: tuple[float, ...]) -> None:
    parts = [recorded(tmp_path / f"{n}.ts", start=start) for n, start in enumerate(starts)]

    clip = opened(joined(tmp_path / "clip.ts", *parts))

    expected = 2 * len(parts)
    assert clip.timeline.duration == pytest.approx(expected, abs=0.1 * len(parts))
    flashed, beeped = flashes_and_beeps(clip, tmp_path)
    assert len(flashed) == len(beeped)
    assert beeped == pytest.approx(flashed, abs=0.062)
    # Each part is there, from its beginning to its end, but for a frame that two parts may share.
    seen = numbers(clip, tmp_path)
    assert [seen.count(number) >= len(parts) for number in range(1, 49)] == [True] * 48


@pytest.mark.parametrize(
    ("suffix", "video", "audio", "head", "rate"),
    [("mpg", "mpeg2video", "mp2", 0, 48_000), ("flv", "libx264", "aac", 13, 44_100)],
)
def test_other_recordings_are_joined_too(
    tmp_path: Path, suffix: str, video: str, audio: str, head: int, rate: int
) -> None:
    part = make_clip(tmp_path / f"part.{suffix}", size=(160, 120), codec=video, audio=audio, sample_rate=rate)

    clip = opened(joined(tmp_path / f"clip.{suffix}", part, part, part, head=head))

    assert_joined(clip, tmp_path, seconds=6, flashes=6)


def test_the_same_part_again_and_again_stays_constant_and_together(tmp_path: Path) -> None:
    part = recorded(tmp_path / "part.ts")

    clip = opened(joined(tmp_path / "clip.ts", *[part] * 10))

    assert clip.media.video is not None
    assert (clip.media.video.frames, clip.media.video.rate) == (500, 25)
    assert_joined(clip, tmp_path, seconds=20, flashes=20)


def test_a_gap_is_held_and_stays_a_gap(tmp_path: Path) -> None:
    """The clock goes on, so the signal was lost: eight seconds of the last frame and of silence."""
    parts = recorded(tmp_path / "1.ts"), recorded(tmp_path / "2.ts", start=10)

    clip = opened(joined(tmp_path / "clip.ts", *parts))

    assert clip.timeline.duration == pytest.approx(12, abs=0.1)
    flashed, beeped = flashes_and_beeps(clip, tmp_path)
    assert flashed[-2:] == pytest.approx([10, 11], abs=0.09)
    assert beeped[-2:] == pytest.approx(flashed[-2:], abs=0.062)


def test_sound_and_picture_know_the_same_clock_whoever_reads_them(tmp_path: Path) -> None:
    """The sound's step reads only sound, the picture's only the picture: the offsets must be the same."""
    parts = [recorded(tmp_path / f"{n}.ts", start=start) for n, start in enumerate((50, 0, 9000))]
    path = joined(tmp_path / "clip.ts", *parts)

    def times(*kinds: str) -> list[tuple[int, int | None, int | None]]:
        with open_source(path) as container:
            wanted = [stream for stream in container.streams if stream.type in kinds]
            return [(packet.stream_index, packet.pts, packet.dts) for packet in packets(container, *wanted)]

    both = times("video", "audio")
    for kind in ("video", "audio"):
        alone = times(kind)
        assert alone == [packet for packet in both if packet[0] == alone[0][0]]


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize("wrong", [-5, 300], ids=["back", "ahead"])
@pytest.mark.parametrize("suffix", ["ts", "flv"])
def test_one_damaged_time_leaves_picture_and_sound_together(
    tmp_path: Path, suffix: str, wrong: float, kind: str
) -> None:
    made = make_clip(
        tmp_path / f"clip.{suffix}", seconds=8, size=(160, 120), sample_rate=44_100, options={"bf": "0"}, gop=25
    )
    before = opened(made).media
    content = bytearray(made.read_bytes())
    places = (pes_times if suffix == "ts" else tag_times)(content, kind)
    put = put_pes_time if suffix == "ts" else put_tag_time
    put(content, places[len(places) * 3 // 4], wrong)
    made.write_bytes(content)

    after = opened(made).media

    assert before.video is not None
    assert after.video is not None
    ends = (before.video.end, before.audio[0].end)
    assert (after.video.end, after.audio[0].end) == tuple(pytest.approx(end, abs=0.03) for end in ends)
    assert after.video.constant
    assert float(after.duration) == pytest.approx(float(before.duration), abs=0.03)


def test_silence_of_ten_minutes_in_all_streams_stays_one(tmp_path: Path) -> None:
    parts = recorded(tmp_path / "1.ts"), recorded(tmp_path / "2.ts", start=602)

    media = opened(joined(tmp_path / "clip.ts", *parts)).media

    assert float(media.duration) == pytest.approx(604, abs=0.1)
    assert media.video is not None
    assert float(media.video.end) == pytest.approx(float(media.audio[0].end), abs=0.1)


def pes_times(content: bytes, kind: str) -> list[int]:
    """Where the packets of a transport stream say their time (ISO/IEC 13818-1 §2.4.3.6)."""
    found = []
    for at in range(0, len(content), 188):
        start = at + 4 + (1 + content[at + 4] if content[at + 3] & 0x20 else 0)
        wanted = content[start + 3 : start + 4] in ((b"\xe0",) if kind == "video" else (b"\xc0",))
        if content[at + 1] & 0x40 and content[start : start + 3] == b"\0\0\1" and wanted:
            found.append(start + 9)
    return found


def put_pes_time(content: bytearray, at: int, seconds: float) -> None:
    """Change it, and the time of decoding beside it, by so many seconds."""
    for place in (at, at + 5)[: 2 if content[at - 2] & 0x40 else 1]:
        first, second, third = content[place], *struct.unpack_from(">HH", content, place + 1)
        ticks = (first >> 1 & 7) << 30 | second >> 1 << 15 | third >> 1
        ticks += round(seconds * 90_000)
        content[place] = first & 0xF1 | (ticks >> 30 & 7) << 1
        struct.pack_into(">HH", content, place + 1, (ticks >> 15 & 0x7FFF) << 1 | 1, (ticks & 0x7FFF) << 1 | 1)


def tag_times(content: bytes, kind: str) -> list[int]:
    """Where the tags of an FLV file say their time."""
    found, at = [], 13
    while at + 11 < len(content):
        if content[at] == {"audio": 8, "video": 9}[kind]:
            found.append(at + 4)
        at += 15 + int.from_bytes(content[at + 1 : at + 4], "big")
    return found


def put_tag_time(content: bytearray, at: int, seconds: float) -> None:
    ms = (content[at + 3] << 24 | int.from_bytes(content[at : at + 3], "big")) + round(seconds * 1000)
    content[at : at + 4] = (ms & 0xFFFFFF).to_bytes(3, "big") + bytes([ms >> 24])


# -- the clock itself --------------------------------------------------------------------------------------------------


@dataclass
class Stamp:
    """As much of a packet as a clock looks at; a tick is 1/90000 s."""

    stream_index: int
    dts: int | None
    pts: int | None
    type: str = "video"
    duration: int = 3600
    size: int = 1000
    time_base: Fraction = Fraction(1, 90_000)

    @property
    def stream(self) -> SimpleNamespace:
        return SimpleNamespace(type=self.type)


def stamp(seconds: float | Fraction, index: int = 0, kind: str = "video") -> Stamp:
    ticks = round(seconds * 90_000)
    return Stamp(stream_index=index, dts=ticks, pts=ticks + 3600, type=kind)


def mended(*stamps: Stamp, bits: int | None = 33) -> list[float]:
    clock = JoinedClock(bits)
    assert list(clock.mended(iter(stamps))) == list(stamps)  # type: ignore[arg-type]
    return [round((one.dts or 0) / 90_000, 3) for one in stamps]


def test_times_that_are_right_are_left_alone() -> None:
    stamps = [stamp(n / 25) for n in range(100)]
    assert mended(*stamps) == [round(n / 25, 3) for n in range(100)]
    assert all(one.pts == (one.dts or 0) + 3600 for one in stamps)


def test_a_wrap_is_exact() -> None:
    after = [(float(WRAP) - 0.08 + n * 0.04) % float(WRAP) for n in range(5)]
    start = float(WRAP) - 0.08
    # Packets that do not say how long they last: nothing could be laid end to end.
    stamps = [replace(stamp(time), duration=0) for time in after]
    assert mended(*stamps) == pytest.approx([start + n * 0.04 for n in range(5)], abs=0.002)


def test_a_packet_of_the_part_before_that_comes_late_stays_there() -> None:
    """A muxer writes a picture only when the next one begins: it follows the first sound of the next part."""
    late = mended(
        stamp(100, 0), stamp(100, 1, "audio"), stamp(100.04, 0), stamp(100.04, 1, "audio"),
        stamp(0, 1, "audio"), stamp(100.08, 0), stamp(0, 0), stamp(0.04, 1, "audio"),
    )  # fmt: skip
    assert late == [100, 100, 100.04, 100.04, 100.08, 100.08, 100.08, 100.12]


def test_one_damaged_time_does_not_change_what_follows() -> None:
    times = [0, 0.04, 50_000, 0.12, 0.16, 0.2]
    assert mended(*map(stamp, times)) == [0, 0.04, 0.08, 0.12, 0.16, 0.2]


@pytest.mark.parametrize("wrong", [0, 3, 320, 50_000])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_damaged_times_do_not_put_picture_and_sound_apart(wrong: float, count: int) -> None:
    """Of a few that lie together the first ones may stay wrong; what follows is right again."""
    pictures, sounds = [stamp(20 + n / 25) for n in range(100)], [stamp(20 + n / 25, 1, "audio") for n in range(100)]
    for n in range(50, 50 + count):
        sounds[n] = stamp(wrong + n / 25, 1, "audio")
    times = mended(*(one for both in zip(pictures, sounds, strict=True) for one in both))
    assert times[0::2] == [round(20 + n / 25, 3) for n in range(100)]
    assert times[1::2][50 + count :] == [round(20 + n / 25, 3) for n in range(50 + count, 100)]
    if count == 1:
        assert times[1::2] == times[0::2]


def test_nobody_keeps_more_than_a_little_to_see_how_a_stream_goes_on() -> None:
    read = 0

    def counted() -> Iterator[Any]:
        nonlocal read
        for one in [stamp(0, 1, "audio"), stamp(300, 1, "audio"), *(stamp(n / 25) for n in range(1000))]:
            read += 1
            yield one

    packets = JoinedClock(33).mended(counted())
    assert [next(packets).dts for _ in range(2)] == [0, 300 * 90_000]
    assert read < 150


def test_a_stream_that_begins_late_or_pauses_is_not_a_new_part() -> None:
    picture = [stamp(n) for n in range(0, 4000)]
    assert mended(*picture[:3000], stamp(3000, 1, "audio"), *picture[3000:])[3000] == 3000
    picture = [stamp(n) for n in range(0, 8000)]
    paused = mended(stamp(0, 1, "audio"), *picture, stamp(7999, 1, "audio"))
    assert paused[-1] == 7999


def test_text_goes_with_the_part_it_is_in() -> None:
    times = mended(stamp(100), stamp(100, 2, "subtitle"), stamp(0), stamp(0.5, 2, "subtitle"), stamp(1))
    assert times == [100, 100, 100.04, 100.54, 101.04]


def test_packets_without_a_time_are_left_alone() -> None:
    nameless = Stamp(stream_index=0, dts=None, pts=None)
    assert mended(stamp(1), nameless, stamp(2)) == [1, 0, 2]
    assert nameless.pts is None


def test_a_storm_of_jumps_ends_soon_and_no_later_than_its_packets() -> None:
    """Nobody can stretch a file by lying about times: what jumps is laid end to end."""
    jumps = [stamp(n * 7919 % 90_000, n % 2, "audio" if n % 2 else "video") for n in range(5000)]
    times = mended(*jumps, bits=None)
    assert max(times) - min(times) < 5000 * 3600
