"""Segments say by their bytes what they are, whoever made them and in whatever order."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from makers import draw

from pipeline.errors import PipelineError
from pipeline.media.boxes import BoxError, boxes, codec_string, find, scan_segment, split, timescale
from pipeline.media.cmaf import MadeSegment, SegmentMuxer, digest, segments
from pipeline.media.codecs import AudioEncoder, VideoEncoder, aac, h264
from pipeline.tasks import AudioRendition, AudioStream, Color, Rung, Timeline

RATE = Fraction(30000, 1001)


def _rung(**changes: Any) -> Rung:
    settings = {"crf": 23, "maxrate": 500_000, "bufsize": 1_000_000, "preset": "veryfast", **changes}
    return Rung(name="180p", width=320, height=180, **settings)


def made_video(
    starts: Sequence[int], end: int, *, first: int = 0, keys: Sequence[int] = (), **changes: Any
) -> list[MadeSegment]:
    """Frames [first, end) as segments that begin at `starts`, with further keyframes at `keys`."""
    encoder = VideoEncoder(h264(_rung(**changes), Timeline(rate=RATE, frames=end), Color(range="tv")))
    muxer = SegmentMuxer(kind="video", template=encoder.template, timescale=30000, boundaries=starts)
    made: list[MadeSegment] = []
    for number in range(first, end):
        picture = VideoFrame.from_ndarray(draw(number, Fraction(number) / RATE, (320, 180)), format="yuv444p")
        packets = encoder.encode(picture.reformat(format="yuv420p"), number, key=number in (*starts, *keys))
        made += segments(muxer, packets)
    return made + list(segments(muxer, list(encoder.flush()), last=True))


def made_sound(count: int, starts: Sequence[int]) -> list[MadeSegment]:
    stream = AudioStream(
        index=0, codec="aac", channels=2, layout="stereo", sample_rate=48000, start=Fraction(0), end=Fraction(9)
    )
    encoder = AudioEncoder(aac(AudioRendition(track="audio-1-und", stream=stream, bitrate=128_000)))
    boundaries = [start * 1024 for start in starts]
    muxer = SegmentMuxer(kind="audio", template=encoder.template, timescale=48000, boundaries=boundaries)
    packets: list[Any] = []
    for number in range(count):
        frame = AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, number * 1024, Fraction(1, 48000)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return list(segments(muxer, [packet for packet in packets if 0 <= packet.pts < count * 1024], last=True))


def test_a_segment_knows_its_time_and_its_keyframes() -> None:
    first, second = made_video([0, 60], 100, keys=[30, 90])
    assert (first.scan.start, first.scan.duration) == (0, 60 * 1001)
    assert (second.scan.start, second.scan.duration) == (60 * 1001, 40 * 1001)
    assert [keyframe.tick for keyframe in first.scan.keyframes] == [0, 30 * 1001]
    assert [keyframe.tick for keyframe in second.scan.keyframes] == [60 * 1001, 90 * 1001]
    assert timescale(first.init) == 30000
    assert codec_string(first.init) == "avc1.64000d"


def test_every_frame_is_a_sample_at_its_own_time() -> None:
    """B-frames are decoded in another order than they are shown; the first sample of a segment is its first frame."""
    made = made_video([0, 60], 100)
    ticks = [sample.tick for segment in made for sample in segment.scan.samples]
    assert ticks != sorted(ticks)
    assert sorted(ticks) == [1001 * number for number in range(100)]
    assert all(segment.scan.samples[0].tick == segment.scan.start for segment in made)


def test_samples_fill_the_data_of_the_segment() -> None:
    (made,) = made_video([0], 50, keys=[25])
    data = [box for box in boxes(made.media) if box.kind == b"mdat"]
    assert sum(sample.size for sample in made.scan.samples) == sum(box.end - box.body for box in data)
    for sample in made.scan.samples:
        assert any(box.body <= sample.offset and sample.offset + sample.size <= box.end for box in data)


def test_a_fragment_is_a_group_of_pictures() -> None:
    (made,) = made_video([0], 90, keys=[30, 60])
    assert [box.kind for box in boxes(made.media)] == [b"moof", b"mdat"] * 3


def test_a_later_chunk_has_the_same_init_segment() -> None:
    whole = made_video([0, 60], 90)
    later = made_video([60], 90, first=60)
    assert [segment.init for segment in (*whole, *later)] == [whole[0].init] * 3
    assert later[0].scan.start == whole[1].scan.start


def test_the_same_work_gives_the_same_bytes() -> None:
    assert made_video([0], 30) == made_video([0], 30)


def test_quality_does_not_change_the_init_segment() -> None:
    """`stitchable`: without it the CRF stands in the PPS."""
    (one,), (other,) = made_video([0], 20, crf=20), made_video([0], 20, crf=28)
    assert len(one.media) > len(other.media)
    assert digest(one.init) == digest(other.init)


def test_options_of_the_profile_reach_the_encoder() -> None:
    (plain,) = made_video([0], 30)
    (without,) = made_video([0], 30, options=(("bf", "0"), ("x264-params", "scenecut=0")))
    assert [sample.tick for sample in without.scan.samples] == [1001 * number for number in range(30)]
    assert digest(plain.init) != digest(without.init)


def test_sound_is_one_fragment_a_segment() -> None:
    made = made_sound(100, [0, 47])
    assert [(m.scan.start, m.scan.duration) for m in made] == [(0, 47 * 1024), (47 * 1024, 53 * 1024)]
    assert [[box.kind for box in boxes(m.media)] for m in made] == [[b"moof", b"mdat"]] * 2
    assert made[0].init == made[1].init
    assert codec_string(made[0].init) == "mp4a.40.2"
    assert timescale(made[0].init) == 48000


def test_a_packet_outside_of_every_segment_is_an_error() -> None:
    with pytest.raises(PipelineError) as caught:
        made_video([10], 30)
    assert caught.value.code == "stage_failed"


# -- boxes -------------------------------------------------------------------------------------------------------------


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def test_boxes_are_walked() -> None:
    data = _box(b"ftyp", b"abcd") + _box(b"moov", _box(b"mvex", _box(b"trex", b"x"))) + _box(b"mdat")
    assert [(box.kind, box.start, box.end) for box in boxes(data)] == [
        (b"ftyp", 0, 12),
        (b"moov", 12, 37),
        (b"mdat", 37, 45),
    ]
    assert data[find(data, b"moov", b"mvex", b"trex").body :][:1] == b"x"
    assert split(data) == (data[:37], data[37:])


def test_a_large_size_is_read() -> None:
    data = struct.pack(">I4sQ", 1, b"mdat", 20) + b"abcd"
    (box,) = boxes(data)
    assert data[box.body : box.end] == b"abcd"


@pytest.mark.parametrize("data", [b"abc", struct.pack(">I4s", 99, b"mdat"), struct.pack(">I4s", 4, b"mdat")])
def test_what_is_no_box_is_refused(data: bytes) -> None:
    with pytest.raises(BoxError):
        list(boxes(data))


def test_defaults_of_every_level_are_used() -> None:
    """Durations from `trex`, sizes from `tfhd`, flags from `trun`; offsets count from the fragment."""
    trex = _box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 500, 0, 0x10000))
    init = _box(b"moov", _box(b"mvex", trex))
    tfhd = _box(b"tfhd", struct.pack(">III", 0x020010, 1, 3))
    tfdt = _box(b"tfdt", struct.pack(">IQ", 0x01000000, 7000))
    trun = _box(b"trun", struct.pack(">IIiIii", 0x01000805, 2, 88, 0, 500, -500))
    moof = _box(b"moof", _box(b"traf", tfhd, tfdt, trun))
    scan = scan_segment(moof + _box(b"mdat", b"aaabbb"), init)
    assert (scan.start, scan.duration) == (7000, 1000)
    assert [(s.tick, s.duration, s.size, s.sync) for s in scan.samples] == [(7500, 500, 3, True), (7000, 500, 3, False)]
    assert [s.offset for s in scan.samples] == [88, 91]


def test_scanning_needs_no_libav() -> None:
    """The worker's own process scans segments, and must not load a decoder."""
    code = "import sys, pipeline.media.boxes; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
