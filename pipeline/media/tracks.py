"""What the packets and the first frames of a stream say: when it begins and ends, and whether it can be decoded at all.

A header promises; packets and frames are. Timestamps come from every packet, because headers lie about durations and
rates; that a stream can be decoded is believed once some of it was.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.packet import Packet, PacketSideData
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.errors import PipelineError
from pipeline.media.color import told_color
from pipeline.tasks import Color

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
    size: int = 0
    """Bytes of all packets."""
    encrypted: bool = False
    corrupt: int = 0
    """Packets that the container knows to be damaged."""
    failed: int = 0
    """Packets of the sample that do not decode."""
    unordered: int = 0
    """Packets that are to be decoded before the one that came before them."""
    untimed: int = 0
    """Packets without any time."""
    discarded: int = 0
    """Packets that are decoded but not shown: an edit list hides them."""
    leading: int = 0
    """Packets that come after a keyframe, not the first one, and are shown before it."""
    rewound: bool = False
    """Packets come again, to be decoded for what follows: an edit list shows parts of a GOP."""
    begins_inside: bool = False
    """The first packet is no keyframe."""
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
    _key: int | None = field(default=None, init=False)
    """Presentation ticks of the latest keyframe."""

    def __post_init__(self) -> None:
        self.time_base = self.stream.time_base or Fraction(1)
        self._jump = _JUMP / self.time_base  # once: there may be millions of packets
        self._may_hide = self.stream.codec_context.name == "vp8"
        self.color = told_color(self.stream) if isinstance(self.stream, VideoStream) else Color()

    def seconds(self, ticks: int) -> Fraction:
        return ticks * self.time_base

    def feed(self, packet: Packet[Stream]) -> None:
        """Note one packet, and decode it while frames are wanted."""
        if not self.packets:
            self.begins_inside = not packet.is_keyframe
        self.packets += 1
        self.size += packet.size
        self.corrupt += packet.is_corrupt
        beside = {data.data_type: data for data in packet.iter_sidedata()}
        self.encrypted = self.encrypted or "encryption_info" in beside
        ticks = self._tick(packet)
        if packet.is_keyframe:
            self.keys.append(ticks)
        if packet.is_discard:
            self.discarded += 1
        elif not (self._may_hide and _hidden(packet)):
            self._present(ticks, packet, beside.get("skip_samples"))
        if len(self.frames) < self.wanted and self.packets <= _PATIENCE + self.wanted:
            self._decode(packet)

    def bitrate(self, seconds: Fraction) -> int | None:
        """Bits a second, over so many seconds."""
        return round(self.size * 8 / seconds) if seconds > 0 else None

    def finish(self) -> None:
        """Take the frames that the decoder still holds, where the stream is so short that it holds any we want."""
        if self.packets and len(self.frames) < self.wanted:
            self._decode(None)

    def _tick(self, packet: Packet[Stream]) -> int:
        """When it is presented; where nobody says, when it is decoded, or after the one before."""
        pts, dts = packet.pts, packet.dts
        self._watch_clock(dts, packet.is_discard)
        if pts is not None:
            self._watch_order(pts, packet.is_keyframe)
            ticks = pts
        elif dts is not None:
            ticks = dts
        else:
            self.untimed += 1
            ticks = self._next
        self._next = ticks + max(packet.duration or 0, 1)
        return ticks

    def _watch_clock(self, dts: int | None, is_discard: bool) -> None:
        if is_discard:
            self.rewound = self.rewound or (dts is not None and self._dts is not None and dts < self._dts)
        elif dts is not None:
            if self._dts is not None and dts < self._dts:
                self.unordered += 1
                self.clock_restarts = self.clock_restarts or self._dts - dts > self._jump
            self._dts = dts

    def _watch_order(self, pts: int, is_keyframe: bool) -> None:
        if is_keyframe:
            self._key = pts
        elif self._key is not None and pts < self._key and len(self.keys) > 1:
            self.leading += 1

    def _present(self, ticks: int, packet: Packet[Stream], skipped: PacketSideData | None) -> None:
        self.pts.append(ticks)
        if self._highest is None or ticks >= self._highest:
            self._highest, self.tail = ticks, max(packet.duration or 0, 0)
            self.trimmed = _trimmed_samples(skipped)

    def _decode(self, packet: Packet[Stream] | None) -> None:
        try:
            self.frames += decode(self.stream, packet)
        except av.FFmpegError:  # one packet proves nothing: a recording may begin inside a GOP
            self.failed += 1


def decode(stream: Stream, packet: Packet[Stream] | None) -> list[av.VideoFrame | av.AudioFrame]:
    """The frames that come out for this packet, or at the end of the stream (None). Raises `av.FFmpegError`."""
    if isinstance(stream, VideoStream):
        return list(stream.codec_context.decode(packet))
    if isinstance(stream, AudioStream):
        return list(stream.codec_context.decode(packet))
    raise PipelineError("stage_failed", reason=f"a {stream.type} stream cannot be decoded")


def _hidden(packet: Packet[Stream]) -> bool:
    """Whether this packet of VP8 only helps to decode others: such frames come apart (RFC 6386 §9.1, show_frame)."""
    return packet.size > 0 and not memoryview(packet)[0] & 0x10


def _trimmed_samples(skipped: PacketSideData | None) -> int:
    """Samples that are padding at the end of a packet (libavcodec/packet.h AV_PKT_DATA_SKIP_SAMPLES)."""
    data = bytes(skipped) if skipped is not None else b""
    return int(struct.unpack_from("<II", data)[1]) if len(data) >= 8 else 0
