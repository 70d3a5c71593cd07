"""What the packets and the first frames of a stream say: when it begins and ends, and whether it can be decoded at all.

A header promises; packets and frames are. Timestamps come from every packet, because headers lie about durations and
rates; that a stream can be decoded is believed once some of it was.
"""

from __future__ import annotations

import struct
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.errors import PipelineError

VIDEO_SAMPLE = 16
"""Frames that are decoded of the beginning of a picture: enough to see fields, hidden frames and reordering."""
AUDIO_SAMPLE = 4
_PATIENCE = 600
"""Packets that may fail before the first one that decodes: a recording that begins inside a long GOP."""
_JUMP = 1
"""Seconds by which decoding times may go back. They should never; a clock that starts again is another matter."""


@dataclass(kw_only=True)
class Track:
    """One stream while its packets pass by, each of them once and in order (`feed`), and then `finish`.

    Ticks are those of the stream's time base.
    """

    stream: Stream
    wanted: int
    """Frames to decode."""
    packets: int = 0
    encrypted: bool = False
    clock_restarts: bool = False
    pts: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of every presented packet, in the order of decoding."""
    keys: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of every keyframe, those included that are decoded but not shown."""
    tail: int = 0
    """Ticks that the packet presented last says it lasts; 0 where it does not say."""
    trimmed: int = 0
    """Samples to drop at the very end, of a sound."""
    frames: list[av.VideoFrame | av.AudioFrame] = field(default_factory=list)
    """The first frames that the decoder gave, in its order."""
    _dts: int | None = field(default=None, init=False)
    _highest: int | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)

    @property
    def time_base(self) -> Fraction:
        return self.stream.time_base or Fraction(1)

    def seconds(self, ticks: int) -> Fraction:
        return ticks * self.time_base

    def feed(self, packet: Packet[Stream]) -> None:
        """Note one packet, and decode it while frames are wanted."""
        self.packets += 1
        self.encrypted = self.encrypted or packet.has_sidedata("encryption_info")
        self._watch_clock(packet)
        ticks = next((t for t in (packet.pts, packet.dts) if t is not None), self._next)
        self._next = ticks + max(packet.duration or 0, 1)
        if packet.is_keyframe:
            self.keys.append(ticks)
        if not packet.is_discard and not _hidden(packet):
            self._present(ticks, packet)
        if len(self.frames) < self.wanted and self.packets <= _PATIENCE + self.wanted:
            self._decode(packet)

    def finish(self) -> None:
        """Take the frames that the decoder still holds, where the stream is so short that it holds any we want."""
        if self.packets and len(self.frames) < self.wanted:
            self._decode(None)

    def _watch_clock(self, packet: Packet[Stream]) -> None:
        if packet.dts is not None:
            if self._dts is not None and self.seconds(self._dts - packet.dts) > _JUMP:
                self.clock_restarts = True
            self._dts = packet.dts

    def _present(self, ticks: int, packet: Packet[Stream]) -> None:
        self.pts.append(ticks)
        if self._highest is None or ticks >= self._highest:
            self._highest, self.tail = ticks, max(packet.duration or 0, 0)
            self.trimmed = _trimmed_samples(packet)

    def _decode(self, packet: Packet[Stream] | None) -> None:
        # One packet that does not decode proves nothing: a recording may begin inside a GOP.
        with suppress(av.FFmpegError):
            self.frames += decode(self.stream, packet)


def decode(stream: Stream, packet: Packet[Stream] | None) -> list[av.VideoFrame | av.AudioFrame]:
    """The frames that come out for this packet, or at the end of the stream (None). Raises `av.FFmpegError`."""
    if isinstance(stream, VideoStream):
        return list(stream.codec_context.decode(packet))
    if isinstance(stream, AudioStream):
        return list(stream.codec_context.decode(packet))
    raise PipelineError("stage_failed", reason=f"a {stream.type} stream cannot be decoded")


def _hidden(packet: Packet[Stream]) -> bool:
    """Whether this packet only helps to decode others: VP8 keeps such frames apart (RFC 6386 §9.1, show_frame)."""
    context = packet.stream.codec_context
    return context.name == "vp8" and packet.size > 0 and not memoryview(packet)[0] & 0x10


def _trimmed_samples(packet: Packet[Stream]) -> int:
    """Samples that are padding at the end of this packet (libavcodec/packet.h AV_PKT_DATA_SKIP_SAMPLES)."""
    if not packet.has_sidedata("skip_samples"):
        return 0
    data = bytes(packet.get_sidedata("skip_samples"))
    return int(struct.unpack_from("<II", data)[1]) if len(data) >= 8 else 0
