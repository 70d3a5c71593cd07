"""Media with one oddity each: made, or made and then changed in a few bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from makers import draw, make_clip

from pipeline.media.boxes import Box, boxes
from pipeline.tasks import Color

Change = Callable[[Any], bool]
"""Changes a packet; False leaves it out."""

HDR10 = Color(range="tv", primaries="bt2020", transfer="smpte2084", matrix="bt2020nc")
_MASTERED = (
    "log-level=0:hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    ":max-cll=1000,400"
)


def copied(
    source: Path,
    target: Path,
    change: Change = lambda _packet: True,
    *,
    options: Mapping[str, str] | None = None,
    titles: Mapping[int, str] | None = None,
    dispositions: Mapping[int, Disposition] | None = None,
) -> Path:
    """The packets of `source` in another file, some of them changed; nothing is encoded."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=dict(options or {})) as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for index, stream in streams.items():
            stream.metadata.update(read.streams[index].metadata)
            if titles and index in titles:
                stream.metadata["title"] = titles[index]
            if dispositions and index in dispositions:
                stream.disposition = dispositions[index]
        for packet in read.demux():
            if packet.size and change(packet):
                packet.stream = streams[packet.stream_index]
                written.mux(packet)
    return target


def patched(path: Path, place: bytes, offset: int, value: bytes) -> Path:
    """The same file with other bytes, `offset` behind the first `place`."""
    content = bytearray(path.read_bytes())
    at = content.index(place) + offset
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


def hdr10(path: Path, **more: Any) -> Path:
    """Ten bits, PQ, and what the screen of the grading could do."""
    options = {"preset": "ultrafast", "x265-params": _MASTERED}
    return make_clip(
        path, codec="libx265", pix_fmt="yuv420p10le", color=HDR10, options=options, seconds=1, size=(160, 96), **more
    )


def dolby(path: Path, *, profile: int, compatibility: int) -> Path:
    """An MP4 whose header says Dolby Vision; there is none in its packets."""
    made = hdr10(path, audio=None)
    bits = profile << 9 | 6 << 3 | 0b101  # level 6, with RPU and base layer
    body = struct.pack(">BBHB19x", 1, 0, bits, compatibility << 4)
    box = struct.pack(">I4s", 8 + len(body), b"dvvC" if profile > 7 else b"dvcC") + body
    made.write_bytes(_with_sample_box(made.read_bytes(), box))
    return made


def mirrored(path: Path, matrix: Iterable[int]) -> Path:
    """A short clip with this display matrix: nine numbers of libav's layout."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_matrix(list(matrix))
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(draw(number, Fraction(1), (64, 48)), format="yuv444p")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def covered(path: Path, plain: Path) -> Path:
    """The sound of `plain` with a cover."""
    with av.open(str(plain)) as source, av.open(str(path), "w", format="mp4") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        cover: Any = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame(64, 48, "yuvj420p")
        frame.pts = 0
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            target.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = sound
                target.mux(packet)
    return path


def two_pictures(path: Path, first: Path, second: Path) -> Path:
    """The pictures of two files as streams of one."""
    with av.open(str(first)) as one, av.open(str(second)) as other, av.open(str(path), "w") as target:
        # Every stream is there before the first packet: the header is written with it.
        streams = [target.add_stream_from_template(source.streams.video[0]) for source in (one, other)]
        for source, stream in zip((one, other), streams, strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    return path


def growing(path: Path, small: Path, large: Path) -> Path:
    """One stream whose pictures are small at first, and large then. Each codec packet says its own size (VP8)."""
    with av.open(str(small)) as one, av.open(str(large)) as other, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(one.streams.video[0])
        for source, start in ((one, 0), (other, 400)):
            for packet in source.demux(source.streams.video[0]):
                if packet.size and packet.pts is not None and packet.pts < 400:
                    packet.pts = packet.dts = packet.pts + start
                    packet.stream = stream
                    target.mux(packet)
    return path


def with_edits(path: Path, *edits: tuple[int, int, int]) -> Path:
    """The first track of an MP4 with this edit list: (duration of the movie's clock, media time, 16.16 rate) each."""
    content = path.read_bytes()
    parents = _way(content, b"moov", b"trak", b"edts", b"elst")
    rows = b"".join(struct.pack(">Iii", *edit) for edit in edits)
    old = parents[-1]
    changed = _grown(content, parents, old.end, bytes(8 + len(rows) - (old.end - old.body)))
    changed[old.body : old.body + 8 + len(rows)] = struct.pack(">II", 0, len(edits)) + rows
    path.write_bytes(changed)
    return path


def _with_sample_box(content: bytes, new: bytes) -> bytes:
    """The file with one more box at the end of its first sample entry."""
    parents = _way(content, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    entry = next(boxes(content, parents[-1].body + 8, parents[-1].end))
    return bytes(_grown(content, [*parents, entry], entry.end, new))


def _way(content: bytes, *kinds: bytes) -> list[Box]:
    """The first box of each kind, each inside of the one before."""
    way: list[Box] = []
    within: tuple[int, int] = (0, len(content))
    for kind in kinds:
        box = next(box for box in boxes(content, *within) if box.kind == kind)
        way.append(box)
        within = (box.body, box.end)
    return way


def _grown(content: bytes, parents: Iterable[Box], place: int, new: bytes) -> bytearray:
    """The file with bytes put in; the index must come last, as nothing else is moved."""
    changed = bytearray(content)
    for box in parents:
        struct.pack_into(">I", changed, box.start, box.end - box.start + len(new))
    changed[place:place] = new
    return changed
