"""Codecs as values: everything that affects the bytes that an encoder writes is in this file, each option with its why.

The law: the same value on the same build gives the same parameter sets (SPS, PPS, AudioSpecificConfig). Chunks of one
track are encoded by different processes and appended byte for byte, so nothing here may depend on the chunk.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame

from pipeline.media.color import needs_mapping, source_color
from pipeline.tasks import AudioRendition, Color, Rung, Timeline, VideoStream

_GLOBAL_HEADER = 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER
_BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT

_MATRICES = frozenset(("bt709", "smpte170m", "bt470bg"))
_TRANSFERS = frozenset(("bt709", "smpte170m", "bt470m", "bt470bg", "iec61966-2-1"))
_PRIMARIES = frozenset(("bt709", "smpte170m", "bt470bg"))


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """One way to encode pictures of one size."""

    name: str
    width: int
    height: int
    pix_fmt: str
    rate: Fraction
    """Frames a second; the encoder counts frames."""
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class AudioCodec:
    """One way to encode sound."""

    name: str
    sample_rate: int
    layout: str
    sample_format: str
    bitrate: int
    """Bits a second."""


def h264(rung: Rung, timeline: Timeline, color: Color) -> VideoCodec:
    """H.264 in capped CRF: easy content stays small, chunks stay independent of each other."""
    options = {
        "preset": rung.preset,
        "profile": rung.profile,
        # Capped CRF: constant quality, and a decoder buffer model that bounds the peaks.
        "crf": f"{rung.crf:g}",
        "maxrate": str(rung.maxrate),
        "bufsize": str(rung.bufsize),
        # Keyframes are forced by absolute position; x264 shall add none but at scene cuts, where they save bits. Ten
        # seconds and not more, because the distance also tunes how sensitive the scene cut detector is.
        "g": str(max(1, round(10 * timeline.rate))),
        # A forced picture is an IDR, not merely an I picture, whatever the GOP structure.
        "forced-idr": "1",
        # Captions come as text tracks. Those in the source's SEI would be doubled where a frame is held.
        "a53cc": "0",
        # Without it the CRF leaks into the PPS (pic_init_qp), and a rung whose CRF changes gets another init segment.
        "x264-params": "stitchable=1",
        # Written out, because players guess by picture height where nothing is said.
        "color_range": color.range or "tv",
        "color_primaries": color.primaries or "bt709",
        "color_trc": color.transfer or "bt709",
        "colorspace": color.matrix or "bt709",
    }
    for name, value in rung.options:
        options[name] = f"{options[name]}:{value}" if name == "x264-params" else value
    return VideoCodec(
        name="libx264",
        width=rung.width,
        height=rung.height,
        pix_fmt="yuv420p",
        rate=timeline.rate,
        options=tuple(options.items()),
    )


def aac(rendition: AudioRendition) -> AudioCodec:
    """AAC-LC, what every player decodes."""
    return AudioCodec(
        name="aac",
        sample_rate=rendition.sample_rate,
        layout="stereo",
        sample_format="fltp",
        bitrate=rendition.bitrate,
    )


def output_color(video: VideoStream) -> Color:
    """Colour of what is encoded: limited range, the source's matrix where players know it, else BT.709."""
    source = source_color(video)
    if needs_mapping(source) or source.matrix not in _MATRICES:
        return Color(range="tv", primaries="bt709", transfer="bt709", matrix="bt709")
    return Color(
        range="tv",
        matrix=source.matrix,
        primaries=source.primaries if source.primaries in _PRIMARIES else source.matrix,
        transfer=source.transfer if source.transfer in _TRANSFERS else "bt709",
    )


class VideoEncoder:
    """An open encoder. `template` is the stream that a muxer copies its description from."""

    def __init__(self, codec: VideoCodec) -> None:
        # An encoder needs a stream of some container to hand its parameters on to a muxer; nothing is written to it.
        self._holder = av.open(io.BytesIO(), "w", format="mp4")
        self.template = _stream(self._holder, codec.name, codec.rate)
        self.template.width, self.template.height = codec.width, codec.height
        self.template.pix_fmt = codec.pix_fmt
        context: Any = self.template.codec_context
        self.time_base = context.time_base = 1 / codec.rate
        context.framerate = codec.rate
        # One thread: chunks are the parallelism. PyAV's default would be sliced threads, worse in quality and speed.
        context.thread_count = 1
        # Parameter sets belong into the init segment.
        context.flags |= _GLOBAL_HEADER
        context.options = dict(codec.options)
        # Opens the encoder, so that its parameter sets exist before the first frame.
        self._holder.start_encoding()

    def encode(self, frame: VideoFrame, number: int, *, key: bool) -> Sequence[Packet[Any]]:
        """Encode `frame` as output frame `number`. The same frame may be encoded again under another number."""
        frame.pts, frame.time_base = number, self.time_base
        # Decoded frames carry the source's picture type, and x264 would obey it.
        frame.pict_type = PictureType.I if key else PictureType.NONE
        return self._stamped(self.template.encode(frame))

    def flush(self) -> Iterator[Packet[Any]]:
        """What is still inside, one packet at a time: the look-ahead of a slow preset takes seconds to encode."""
        for packet in self.template.codec_context.encode_lazy(None):
            packet.duration = 1
            packet.stream = self.template
            yield packet

    def _stamped(self, packets: Sequence[Packet[Any]]) -> Sequence[Packet[Any]]:
        for packet in packets:
            # libx264 leaves it 0; the last sample of a fragment has no next one to infer its duration from.
            packet.duration = 1
        return packets


class AudioEncoder:
    """An open sound encoder; feed it frames of `frame_size` samples, in order, from sample 0."""

    def __init__(self, codec: AudioCodec) -> None:
        self._holder = av.open(io.BytesIO(), "w", format="mp4")
        self.template = _stream(self._holder, codec.name, codec.sample_rate)
        context = self.template.codec_context
        context.layout, context.format = codec.layout, codec.sample_format
        context.bit_rate = codec.bitrate
        # Without bitexact the encoder writes its version into the stream: bytes that change with the build's name only.
        context.flags |= _GLOBAL_HEADER | _BITEXACT
        context.time_base = Fraction(1, codec.sample_rate)
        self._holder.start_encoding()
        self.frame_size: int = context.frame_size

    def encode(self, frame: AudioFrame | None) -> Sequence[Packet[Any]]:
        """Packets that became ready; None flushes. The first packet of all is priming, with a negative time."""
        packets: Sequence[Packet[Any]] = self.template.encode(frame)
        return packets


def _stream(holder: OutputContainer, name: str, rate: Fraction | int) -> Any:
    """A new stream; PyAV's type of it depends on the name."""
    return holder.add_stream(name, rate=rate)
