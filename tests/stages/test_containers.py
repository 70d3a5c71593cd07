"""Whatever the container: every frame once, a flash when it beeps, and as long as it was."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from makers import beep_starts, flashes, make_clip, read_frame_number
from running import Clip, opened

RATE = 48_000
FRAME = 0.04
TOGETHER_S = 0.0235
"""Seconds between a flash and its beep that are still together: half a frame of the grid and what a codec needs to
get going, where the container does not say how much that is."""


def shown(clip: Clip, root: Path) -> tuple[list[int], list[float]]:
    """The numbers of the frames, and the seconds at which a flash begins."""
    _, (made,) = clip.transcode(root)
    frames = made.frames()
    bright = [flashes(frame) for frame in frames]
    begun = [n for n, (before, now) in enumerate(zip([False, *bright], bright, strict=False)) if now and not before]
    return [read_frame_number(frame) for frame in frames], [float(n / clip.timeline.rate) for n in begun]


def beeps(clip: Clip, root: Path) -> list[float]:
    return beep_starts(clip.audio(root).sound()[0], RATE)


def assert_together(clip: Clip, root: Path, *, at: list[float], within: float = TOGETHER_S) -> None:
    """From the second one on: what is at the very beginning fades in."""
    _, flashed = shown(clip, root)
    beeped = beeps(clip, root)
    assert flashed[-len(at) :] == pytest.approx(at, abs=FRAME)
    assert beeped[-len(at) :] == pytest.approx(flashed[-len(at) :], abs=within)


@pytest.mark.parametrize(
    ("suffix", "video", "audio", "options"),
    [
        ("mp4", "libx264", "aac", {}),
        ("mp4", "libx265", "eac3", {"options": {"x265-params": "log-level=error"}}),
        ("mov", "prores_ks", "pcm_s16le", {"pix_fmt": "yuv422p10le"}),
        ("mov", "mjpeg", "pcm_s24le", {"pix_fmt": "yuvj420p"}),
        ("mov", "libx264", "alac", {}),
        ("mkv", "libx264", "flac", {}),
        ("webm", "libvpx", "libopus", {}),
        ("webm", "libvpx-vp9", "libopus", {}),
        ("avi", "mpeg4", "libmp3lame", {}),
        ("avi", "mjpeg", "pcm_mulaw", {"pix_fmt": "yuvj420p"}),
        ("flv", "flv", "libmp3lame", {"sample_rate": 44100}),
        ("flv", "libx264", "aac", {}),
        ("mpg", "mpeg2video", "mp2", {}),
        ("ts", "libx264", "aac", {}),
        ("m2ts", "mpeg2video", "ac3", {}),
        ("mxf", "mpeg2video", "pcm_s16le", {}),
        ("3gp", "mpeg4", "aac", {}),
        ("3gp", "h263", "libopencore_amrnb", {"sample_rate": 8000, "channels": 1}),
    ],
)
def test_picture_and_sound_come_out_whole_and_together(
    suffix: str, video: str, audio: str, options: dict[str, Any], tmp_path: Path
) -> None:
    source = make_clip(
        tmp_path / f"clip.{suffix}", seconds=2, size=(176, 144), codec=video, audio=audio, gop=12, **options
    )
    clip = opened(source)

    assert clip.timeline.duration == pytest.approx(2, abs=0.06)
    assert_together(clip, tmp_path, at=[1 + float(_lead(clip))])
    numbers, _ = shown(clip, tmp_path)
    assert sorted(set(numbers)) == list(range(50))
    assert numbers == sorted(numbers)
    assert clip.audio(tmp_path).warnings() == ""


def _lead(clip: Clip) -> Fraction:
    """Seconds by which sound is there before the picture: what an encoder needs to get going."""
    assert clip.media.video is not None
    return clip.media.video.start - clip.timeline.start


@pytest.mark.parametrize(
    ("suffix", "audio", "options"),
    [
        ("mp3", "libmp3lame", {}), ("mp2", "mp2", {}), ("wav", "pcm_s16le", {}), ("w64", "pcm_s24le", {}),
        ("aiff", "pcm_s16be", {}), ("caf", "pcm_s16le", {}), ("flac", "flac", {}), ("ogg", "libopus", {}),
        ("oga", "flac", {}), ("aac", "aac", {}), ("m4a", "aac", {}), ("m4a", "alac", {}), ("mka", "ac3", {}),
        ("amr", "libopencore_amrnb", {"sample_rate": 8000, "channels": 1}),
    ],
)  # fmt: skip
def test_sound_alone_comes_out_whole(suffix: str, audio: str, options: dict[str, Any], tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / f"clip.{suffix}", seconds=2, codec=None, audio=audio, **options))

    assert clip.media.video is None
    assert clip.timeline.duration == pytest.approx(2, abs=0.03)
    assert beeps(clip, tmp_path)[-1] == pytest.approx(1, abs=TOGETHER_S)


def test_fragments_come_out_whole(tmp_path: Path) -> None:
    whole, path = make_clip(tmp_path / "whole.mp4", seconds=3, size=(160, 120), gop=25), tmp_path / "fragments.mp4"
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(whole)) as source, av.open(str(path), "w", options=options) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    clip = opened(path)

    # Without a place for how much of the beginning is priming, sound keeps it.
    assert_together(clip, tmp_path, at=[1 + float(_lead(clip)), 2 + float(_lead(clip))], within=0.03)


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=RATE, layout="stereo")
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame(64, 64, "yuvj420p")
        picture.pts = 0
        container.mux([*cover.encode(picture), *cover.encode(None)])
        for n in range(RATE // 1024):
            frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
            frame.sample_rate, frame.pts, frame.time_base = RATE, n * 1024, Fraction(1, RATE)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    clip = opened(path)

    assert (clip.media.video, len(clip.media.audio), len(clip.media.pictures)) == (None, 1, 1)
    assert clip.audio(tmp_path).part.segments


# -- edit lists --------------------------------------------------------------------------------------------------------


def trimmed(path: Path, *, picture: float = 0, sound: float = 0) -> Path:
    """The same file, its edit lists beginning so many seconds later (ISO/IEC 14496-12 §8.6.6)."""
    data = bytearray(path.read_bytes())
    first = data.index(b"elst")
    places = {first: (picture, 12_800), data.index(b"elst", first + 4): (sound, RATE)}
    for at, (seconds, timescale) in places.items():
        duration, begin = struct.unpack_from(">Ii", data, at + 12)
        struct.pack_into(">Ii", data, at + 12, duration - round(seconds * 1000), begin + round(seconds * timescale))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(
    ("picture", "sound", "flashed", "beeped"),
    [(0.52, 0.52, [0.48, 1.48], [0.48, 1.48]), (0.4, 0, [0.6, 1.6], [1, 2]), (0, 0.5, [1, 2], [0.5, 1.5])],
)
def test_what_an_edit_list_cuts_off_is_gone_and_the_rest_moves(
    suffix: str, picture: float, sound: float, flashed: list[float], beeped: list[float], tmp_path: Path
) -> None:
    """Cut inside a group of pictures: frames are decoded that are not shown."""
    whole = make_clip(tmp_path / f"clip.{suffix}", seconds=3, size=(160, 120), gop=25)
    clip = opened(trimmed(whole, picture=picture, sound=sound))

    numbers, flashes_at = shown(clip, tmp_path)

    assert numbers[0] == round(picture * 25)
    assert flashes_at[-2:] == pytest.approx(flashed, abs=1e-3)
    assert [beep for beep in beeps(clip, tmp_path) if beep > 0.1][:2] == pytest.approx(beeped, abs=0.012)


@pytest.mark.parametrize(("audio", "suffix"), [("aac", "mp4"), ("pcm_s16le", "mov")])
def test_an_empty_edit_is_a_delay(audio: str, suffix: str, tmp_path: Path) -> None:
    times = {"audio_start": 0.7, "audio_seconds": 2.2}, {"video_start": 0.7}
    for number, late in enumerate(times):
        clip = opened(make_clip(tmp_path / f"{number}.{suffix}", seconds=3, size=(160, 120), audio=audio, **late))

        _, flashed = shown(clip, tmp_path)
        beeped = beeps(clip, tmp_path)

        assert [time for time in flashed if 0.5 < time < 2.5] == [1, 2]
        assert [time for time in beeped if 0.5 < time < 2.5] == pytest.approx([1, 2], abs=0.012)
