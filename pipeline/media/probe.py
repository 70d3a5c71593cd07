"""Knowing a source: everything that planning needs, learned from the packets and frames themselves.

`probe` reads every packet once and decodes a little of every stream that will be kept. What it cannot serve it refuses,
with a code. It believes no header: durations, rates and frame counts are counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from typing import Literal, cast

import av
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream as AvVideoStream

from pipeline.errors import PipelineError
from pipeline.media.color import color_of
from pipeline.media.languages import tag
from pipeline.media.rates import measure
from pipeline.media.sources import Source, open_source, packets, reading, size_of
from pipeline.media.tracks import AUDIO_SAMPLE, VIDEO_SAMPLE, Track, decode
from pipeline.tasks import AudioStream, Limits, MediaInfo, VideoStream

LONGEST_GAP = 3600
"""Seconds without a frame that are still believed. Two frames ten hours apart are a few bytes of input and hours of
output; a slide that stands for an hour is the most that a lecture needs."""

_SEEKABLE = ("mov,mp4", "matroska")
"""Formats with an index that names keyframes; the others are searched by guessing (MPEG-TS, -PS), or have an index that
may be missing or wrong (FLV, AVI)."""
_NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
_TICK_EVERY = 64
"""Packets between two reports."""
_DECODED_BY = 0.5
"""Where the reading of the packets ends on the way from 0 to 1, if the picture may have to be decoded after it."""

Tick = Callable[[float], None]


def probe(source: Source, limits: Limits, tick: Tick) -> MediaInfo:
    """What the media file is, with the times of its keyframes.

    Raises `media_url_not_accessible`, `media_url_file_broken`, `media_url_unsupported_format`,
    `media_filesize_too_large`, `video_file_broken`, `audio_file_broken`, `video_resolution_too_high`,
    `video_duration_too_long`, `audio_duration_too_long`. `tick` gets fractions of 1.
    """
    with open_source(source) as container:
        size = size_of(source)
        if limits.max_bytes is not None and size > limits.max_bytes:
            raise PipelineError("media_filesize_too_large", current_size=size, maximum_size=limits.max_bytes)
        picture, sounds = _choose(container, limits)
        _read(container, [*filter(None, [picture]), *sounds], size, tick)
        return _Source(source=source, container=container, size=size, limits=limits, tick=tick).info(picture, sounds)


def _choose(container: InputContainer, limits: Limits) -> tuple[Track | None, list[Track]]:
    """The main picture, if there is any, and every sound that libav has a decoder for."""
    if len(container.streams) > limits.max_streams:
        raise _unsupported(f"{len(container.streams)} streams")
    pictures = [stream for stream in container.streams.video if _is_picture(stream)]
    sounds = [stream for stream in container.streams.audio if _decodable(stream)]
    if not pictures and not sounds:
        if not len(container.streams):
            raise PipelineError("media_url_file_broken", log="there are no streams")
        raise _unsupported(_nothing_to_play(container))
    main = min(pictures, key=_importance, default=None)
    if main is not None:
        _check_pixels(main.width, main.height, limits)
        # A sample of some frames needs no threads, each of which would hold pictures of its own.
        main.thread_count = 1
    return (
        Track(stream=main, wanted=VIDEO_SAMPLE) if main is not None else None,
        [Track(stream=stream, wanted=AUDIO_SAMPLE) for stream in sounds],
    )


def _decodable(stream: AvVideoStream | AvAudioStream) -> bool:
    # PyAV has no context for a codec that this build of libav does not know.
    return cast(object, stream.codec_context) is not None


def _is_picture(stream: AvVideoStream) -> bool:
    return _decodable(stream) and not stream.disposition & _NO_PICTURE


def _importance(stream: AvVideoStream) -> tuple[bool, int, int]:
    """Sorts the main picture first: as ffmpeg chooses, the default one, then the largest, then the first."""
    return not stream.disposition & Disposition.default, -stream.width * stream.height, stream.index


def _nothing_to_play(container: InputContainer) -> str:
    playable: list[AvVideoStream | AvAudioStream] = [*container.streams.video, *container.streams.audio]
    if not all(_decodable(stream) for stream in playable):
        return "unknown codec"
    return f"only {' and '.join(sorted({'image' if s.type == 'video' else s.type for s in container.streams}))}"


def _read(container: InputContainer, tracks: Sequence[Track], size: int, tick: Tick) -> None:
    """Lead every packet past its track."""
    by_index = {track.stream.index: track for track in tracks}
    tick(0)
    with reading("media_url_file_broken"):
        for count, packet in enumerate(packets(container, *(track.stream for track in tracks))):
            by_index[packet.stream_index].feed(packet)
            if count % _TICK_EVERY == 0:
                tick(_DECODED_BY * min(1, (packet.pos or 0) / size))
    for track in tracks:
        track.finish()


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A source whose packets have all been read."""

    source: Source
    container: InputContainer
    size: int
    limits: Limits
    tick: Tick

    def info(self, picture: Track | None, sounds: Sequence[Track]) -> MediaInfo:
        if picture is not None and not picture.packets:
            picture = None  # A header announced it, and it never came.
        tracks = [*filter(None, [picture]), *sounds]
        self._check_whole(tracks)
        video = self._video(picture) if picture else None
        audio = self._audio(sounds, video)
        streams: list[VideoStream | AudioStream] = [*([video] if video else []), *audio]
        start, end = min(stream.start for stream in streams), max(stream.end for stream in streams)
        self._check_duration(video, end - start)
        if max(stream.start for stream in streams) - start > LONGEST_GAP:
            raise PipelineError("video_file_broken", log="picture and sound lie hours apart")
        keyframes = _keyframes(picture) if picture else ()
        return MediaInfo(
            format=self.container.format.name,
            size=self.size,
            duration=end - start,
            start=start,
            video=video,
            audio=audio,
            seekable=picture is None or self._seekable(picture),
            keyframes=keyframes,
        )

    def _check_whole(self, tracks: Sequence[Track]) -> None:
        for track in tracks:
            if track.encrypted or _codec_tag(track.stream) in ("encv", "enca"):
                raise _unsupported("encrypted media")
            entries = track.stream.index_entries
            last = entries[len(entries) - 1] if len(entries) and "mov" in self.container.format.name else None
            if last is not None and last.pos + last.size > self.size:
                raise PipelineError("media_url_file_broken", log=f"the index points {last.pos} bytes in, past the end")
        if not any(track.packets for track in tracks):
            raise PipelineError("media_url_file_broken", log="there are no packets")

    # -- picture -------------------------------------------------------------------------------------------------------

    def _video(self, track: Track) -> VideoStream:
        frames = [frame for frame in track.frames if isinstance(frame, av.VideoFrame)]
        if not frames:
            if "enc_key_id" in track.stream.metadata:  # Matroska's ContentEncryption
                raise _unsupported("encrypted media")
            raise PipelineError("video_file_broken", log=f"none of {track.packets} packets decodes")
        if track.clock_restarts:
            raise PipelineError("video_file_broken", log="the timestamps start again in the middle")
        frame, stream = frames[0], cast(AvVideoStream, track.stream)
        _check_pixels(frame.width, frame.height, self.limits)
        times = self._presented(track, frames)
        if not times:
            raise PipelineError("video_file_broken", log="no frame has a time")
        rate, constant = measure(times, track.time_base, stream.guessed_rate)
        return VideoStream(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            width=frame.width,
            height=frame.height,
            sample_aspect_ratio=_sample_aspect_ratio(stream, frame.width),
            rotation=_clockwise(frame.rotation),
            pix_fmt=frame.format.name,
            color=color_of(frame),
            interlaced=any(frame.interlaced_frame for frame in frames),
            rate=rate,
            constant=constant,
            frames=len(times),
            start=track.seconds(times[0]),
            end=track.seconds(times[-1]) + _last_frame(track.seconds(track.tail), 1 / rate, constant),
        )

    def _presented(self, track: Track, frames: Sequence[av.VideoFrame]) -> list[int]:
        """Ticks of every frame that is shown, in order and without repeats.

        A packet is a frame, but for fields that come one by one and for damage: where the sample shows that packets and
        frames differ, the whole picture is decoded to know.
        """
        shown = [frame.pts for frame in frames if frame.pts is not None]
        times = sorted(set(track.pts))
        if "mov" in self.container.format.name:
            # Before t = 0 nothing is presented (ISO/IEC 14496-12 §8.6.6); fragmented files come without discard flags.
            times = times[bisect_left(times, 0) :] or times
        if not shown:
            return times
        first, last = min(shown), max(shown)
        times = times[bisect_left(times, first) :]
        if [ticks for ticks in times if ticks <= last] != sorted(set(shown)):
            times = self._decoded(track)
        gap = max((later - earlier for earlier, later in pairwise(times)), default=0)
        if track.seconds(gap) > LONGEST_GAP:
            raise PipelineError("video_file_broken", log=f"{float(track.seconds(gap))} s without a frame")
        return times

    def _decoded(self, track: Track) -> list[int]:
        """Ticks of every frame that the decoder gives for the whole picture."""
        times: set[int] = set()
        with open_source(self.source) as container:
            stream = container.streams[track.stream.index]
            cast(AvVideoStream, stream).thread_type = "AUTO"
            for count, packet in enumerate(chain(packets(container, stream), [None])):
                # Damage inside costs the frames that it hits, not the source.
                with suppress(av.FFmpegError):
                    times.update(frame.pts for frame in decode(stream, packet) if frame.pts is not None)
                if packet is not None and count % 8 == 0:
                    self.tick(_DECODED_BY + (1 - _DECODED_BY) * min(1, (packet.pos or 0) / self.size))
        return sorted(times)

    def _seekable(self, track: Track) -> bool:
        """Whether a fresh reader that seeks to a keyframe lands on it, or one before, and can decode from there."""
        if not self.container.format.name.startswith(_SEEKABLE):
            return False
        keys = sorted(set(track.keys))
        try:
            return all(self._lands(track.stream.index, keys, n) for n in {len(keys) // 2, len(keys) - 1} if n > 0)
        except av.FFmpegError:
            return False

    def _lands(self, index: int, keys: Sequence[int], number: int) -> bool:
        with open_source(self.source) as container:
            stream = container.streams[index]
            container.seek(keys[number], stream=stream)
            self.tick(1)
            following = packets(container, stream)
            first = next(following, None)
            if first is None or not first.is_keyframe or first.pts is None:
                return False
            on_it = keys[number - 1] <= first.pts <= keys[number]
            return on_it and any(decode(stream, packet) for packet in chain([first], following, [None]))

    # -- sound ---------------------------------------------------------------------------------------------------------

    def _audio(self, tracks: Sequence[Track], video: VideoStream | None) -> tuple[AudioStream, ...]:
        """Every sound that can be decoded. There must be one if the source has any, or has nothing else."""
        present = [track for track in tracks if track.packets]
        streams = tuple(self._sound(track) for track in present if track.frames and track.pts)
        if not streams and (present or video is None):
            raise PipelineError("audio_file_broken", log="no sound decodes")
        return streams

    def _sound(self, track: Track) -> AudioStream:
        frame, stream = cast(av.AudioFrame, track.frames[0]), cast(AvAudioStream, track.stream)
        times = sorted(track.pts)
        gap = max((later - earlier for earlier, later in pairwise(times)), default=0)
        if track.clock_restarts or track.seconds(gap) > LONGEST_GAP:
            raise PipelineError("audio_file_broken", log="the timestamps jump")
        # The decoder drops the priming samples, so its first frame knows better than the first packet.
        start = frame.pts * (frame.time_base or track.time_base) if frame.pts is not None else track.seconds(times[0])
        tail = track.seconds(track.tail) or Fraction(frame.samples, frame.sample_rate)
        end = track.seconds(times[-1]) + max(tail - Fraction(track.trimmed, frame.sample_rate), Fraction(0))
        return AudioStream(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            channels=frame.layout.nb_channels,
            layout=frame.layout.name,
            sample_rate=frame.sample_rate,
            language=tag(stream.metadata.get("language")),
            title=_printable(stream.metadata.get("title")),
            default=bool(stream.disposition & Disposition.default),
            start=start,
            end=max(end, start),
        )

    # -- limits --------------------------------------------------------------------------------------------------------

    def _check_duration(self, video: VideoStream | None, duration: Fraction) -> None:
        if self.limits.max_duration_s is not None and duration > self.limits.max_duration_s:
            raise PipelineError(
                "video_duration_too_long" if video else "audio_duration_too_long",
                current_duration=int(duration),
                minimum_duration=0,
                maximum_duration=self.limits.max_duration_s,
            )


def _keyframes(track: Track) -> tuple[Fraction, ...]:
    return tuple(track.seconds(ticks) for ticks in sorted(set(track.keys)))


def _codec_tag(stream: Stream) -> str:
    """Four characters; empty where the tag is a number, as for AAC in AVI (0x00ff): PyAV cannot read those."""
    try:
        return str(stream.codec_tag)
    except UnicodeDecodeError:
        return ""


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise PipelineError(
            "video_resolution_too_high",
            current_resolution=f"{width}x{height}",
            maximum_resolution=f"{limits.max_pixels} pixels",
        )


def _sample_aspect_ratio(stream: AvVideoStream, width: int) -> Fraction:
    """The width of a pixel for a height of 1. Absurd ones count as 1: they come from broken headers."""
    ratio = stream.sample_aspect_ratio or Fraction(1)
    return ratio if Fraction(1, 10) <= ratio <= 10 and round(width * ratio) >= 1 else Fraction(1)


def _clockwise(counterclockwise: int) -> Literal[0, 90, 180, 270]:
    """Degrees to turn the stored picture by, from what its display matrix says in the other direction.

    Angles between are rounded to quarter turns, as players do.
    """
    return cast(Literal[0, 90, 180, 270], round(-counterclockwise / 90) * 90 % 360)


def _last_frame(written: Fraction, frame: Fraction, constant: bool) -> Fraction:
    """Seconds that the last frame stands.

    The source's word counts where it says more than rounding: a hold of two frames or more on a constant grid, and
    anything from half a typical frame on a variable one.
    """
    return written if written >= frame * (2 if constant else Fraction(1, 2)) else frame


def _printable(text: str | None) -> str | None:
    """A title as a person may read it: no control characters, at most 200 characters; None for nothing."""
    return "".join(char for char in (text or "").strip() if char.isprintable())[:200] or None


def _unsupported(detected: str) -> PipelineError:
    return PipelineError("media_url_unsupported_format", detected_format=detected)
