"""Clips with text: subtitle streams beside the picture, and captions of CEA-608 inside it.

Text is muxed as packets, as a program that copies streams would; captions are written into the packets of a picture
that is there, two bytes a frame, as an encoder of line 21 sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.stream import Disposition
from makers import make_clip

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,16

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One cue: seconds of the clip, and the text in the codec's own markup."""

    start: float
    end: float
    text: str | bytes

    @property
    def raw(self) -> bytes:
        return self.text if isinstance(self.text, bytes) else self.text.encode()


@dataclass(frozen=True, kw_only=True)
class TextIn:
    """One subtitle stream."""

    codec: str
    said: Sequence[Said]
    language: str | None = "eng"
    title: str | None = None
    disposition: int = 0
    """`av.stream.Disposition`."""


def make_text_clip(path: Path, *texts: TextIn, clip: Path | None = None, **fields: Any) -> Path:
    """A clip (of `makers.make_clip`, or the file `clip`) with these subtitle streams; the suffix decides the
    container."""
    source = clip or make_clip(path.with_name(f"plain-{path.stem}.mp4"), **fields)
    with av.open(str(source)) as plain, av.open(str(path), "w") as container:
        copied = _copied(plain, container)
        streams = [_subtitle_stream(container, text) for text in texts]
        container.start_encoding()
        for text, stream in zip(texts, streams, strict=True):
            for number, said in enumerate(text.said):
                container.mux(_packet(stream, text.codec, number, said))
        for packet in plain.demux():
            if packet.dts is not None:
                packet.stream = copied[packet.stream_index]
                container.mux(packet)
    return path


def _copied(source: Any, target: Any) -> dict[int, Any]:
    """A stream for each of the source's, by index, with what is said of it."""
    copied = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
    for stream in source.streams:
        copied[stream.index].metadata.update(stream.metadata)
    return copied


def _subtitle_stream(container: Any, text: TextIn) -> Any:
    stream = container.add_stream(text.codec)
    if text.language:
        stream.metadata["language"] = text.language
    if text.title:
        stream.metadata["title"] = text.title
    stream.disposition = Disposition(text.disposition)
    stream.codec_context.subtitle_header = _ASS_HEADER
    stream.time_base = Fraction(1, 1000)
    return stream


def _packet(stream: Any, codec: str, number: int, said: Said) -> Packet[Any]:
    packet: Packet[Any] = Packet(_payload(codec, number, said))
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = round(said.start * 1000)
    packet.duration, packet.is_keyframe = round((said.end - said.start) * 1000), True
    return packet


def _payload(codec: str, number: int, said: Said) -> bytes:
    if codec == "ass":
        return b"%d,0,Default,,0,0,0,,%b" % (number, said.raw)
    return len(said.raw).to_bytes(2, "big") + said.raw if codec == "mov_text" else said.raw


# -- captions in the picture ------------------------------------------------------------------------------------------

ROW_15 = (0x14, 0x70)
"""Preamble address code: the last row, from its first column."""
RESUME_LOADING, END_OF_CAPTION, ERASE, ERASE_HIDDEN = (0x14, 0x20), (0x14, 0x2F), (0x14, 0x2C), (0x14, 0x2E)
ROLL_UP_2, CARRIAGE_RETURN = (0x14, 0x25), (0x14, 0x2D)
PAINT_ON = (0x14, 0x29)

Codes = Sequence[tuple[int, int]]
"""Pairs of seven bits each."""


def odd(byte: int) -> int:
    """With its parity bit."""
    return byte | (0x80 if byte.bit_count() % 2 == 0 else 0)


def letters(text: str) -> list[tuple[int, int]]:
    """Plain letters of ASCII as pairs."""
    codes = [*text.encode("ascii"), *([0] if len(text) % 2 else [])]
    return list(zip(codes[::2], codes[1::2], strict=True))


def twice(*codes: tuple[int, int]) -> list[tuple[int, int]]:
    """Control codes are sent twice."""
    return [code for code in codes for _ in range(2)]


def pop_on(said: Iterable[tuple[int, int, str]]) -> dict[int, tuple[int, int]]:
    """One pair a frame, by the number of the frame: captions that are there from frame `start` to frame `end`.

    They must be so far apart that each can be sent before it is shown.
    """
    sent: dict[int, tuple[int, int]] = {}
    for start, end, text in said:
        load = [*twice(RESUME_LOADING), ERASE_HIDDEN, *twice(ROW_15), *letters(text)]
        for frame, code in enumerate(load, start=start - len(load)):
            assert frame >= 0
            assert frame not in sent, "no room to send it"
            sent[frame] = code
        sent |= dict.fromkeys((start, start + 1), END_OF_CAPTION) | dict.fromkeys((end, end + 1), ERASE)
    return sent


def make_captioned_clip(
    path: Path,
    sent: Mapping[int, tuple[int, int]],
    *,
    field: int = 1,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    **fields: Any,
) -> Path:
    """A clip whose frame n carries the pair `sent[n]`; the other frames carry pairs that say nothing."""
    plain = make_clip(path.with_name(f"plain-{path.stem}{_PLAIN[codec]}"), codec=codec, rate=rate, **fields)
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        copied = _copied(source, container)
        first, tick = source.streams.video[0].start_time or 0, source.streams.video[0].time_base or Fraction(1)
        for packet in source.demux():
            if packet.dts is None or packet.pts is None:
                continue
            carrier: Packet[Any] = packet
            if packet.stream_index == source.streams.video[0].index:
                number = round((packet.pts - first) * tick * rate)
                carrier = _with(packet, _insert(bytes(packet), cc_data(sent.get(number), field), codec))
            carrier.stream = copied[packet.stream_index]
            container.mux(carrier)
    return path


_PLAIN = {"libx264": ".mp4", "libx265": ".mp4", "mpeg2video": ".ts"}


def cc_data(pair: tuple[int, int] | None, field: int = 1, *, of_708: bytes = b"") -> bytes:
    """User data of a picture with one pair of CEA-608 and, behind it, triplets of CEA-708 (ATSC A/53)."""
    own = bytes([0xFC + field - 1, *(map(odd, pair or (0, 0)))])
    triplets = own + of_708
    return b"GA94\x03" + bytes([0x40 | len(triplets) // 3, 0xFF]) + triplets + b"\xff"


def _insert(data: bytes, user_data: bytes, codec: str) -> bytes:
    if codec == "mpeg2video":
        slice_ = data.index(b"\x00\x00\x01\x01")
        return data[:slice_] + b"\x00\x00\x01\xb2" + user_data + data[slice_:]
    message = b"\xb5\x00\x31" + user_data
    sei = {"libx264": b"\x06", "libx265": b"\x4e\x01"}[codec] + bytes([4, len(message)]) + message + b"\x80"
    guarded = guard(sei)
    return len(guarded).to_bytes(4, "big") + guarded + data


def guard(data: bytes) -> bytes:
    """With the bytes that keep it from looking like a start code (ITU-T H.264 §7.4.1)."""
    out, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def _with(packet: Packet[Any], data: bytes) -> Packet[Any]:
    changed: Packet[Any] = Packet(data)
    changed.stream, changed.time_base = packet.stream, packet.time_base
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.is_keyframe = packet.is_keyframe
    return changed


def make_caption_track(path: Path, sent: Mapping[int, tuple[int, int]], *, rate: int = 25, **fields: Any) -> Path:
    """A QuickTime file with a track of its own for CEA-608 (`c608`), a pair a frame."""
    plain = make_clip(path.with_name(f"plain-{path.stem}.mp4"), rate=rate, **fields)
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        copied = _copied(source, container)
        track = container.add_mux_stream("eia_608")
        track.time_base = Fraction(1, rate)
        container.start_encoding()
        for number in range(max(sent) + 1):
            packet: Packet[Any] = Packet(bytes([0xFC, *map(odd, sent.get(number, (0, 0)))]))
            packet.stream, packet.time_base, packet.is_keyframe = track, Fraction(1, rate), True
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
        for media in source.demux():
            if media.dts is not None:
                media.stream = copied[media.stream_index]
                container.mux(media)
    return path
