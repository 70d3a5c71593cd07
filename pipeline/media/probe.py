"""Knowing a source: everything that planning needs, learned from the packets and frames themselves.

`probe` reads every packet once and decodes a little of every stream that will be kept. What it cannot serve it refuses,
with a code. It believes no header: durations, rates and frame counts are counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice, pairwise
from typing import cast

import av
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream as AvVideoStream

from pipeline.errors import PipelineError
from pipeline.media.clock import joined_clock
from pipeline.media.color import color_of
from pipeline.media.formats import MOST_CHANNELS, encrypted, unsupported, unsupported_sound
from pipeline.media.labels import (
    codec_tag,
    decodable,
    first_with_fields,
    level,
    may_have_fields,
    pictures,
    profile,
    role,
    sample_bits,
    stands_still,
    title,
)
from pipeline.media.languages import tag
from pipeline.media.limits import check, resolution_error
from pipeline.media.notes import notes
from pipeline.media.pixels import bits
from pipeline.media.rates import measure
from pipeline.media.side_data import dolby_vision, light, orientation, top_field_first
from pipeline.media.sources import Source, decoded, open_source, packets, reading, size_of
from pipeline.media.standard import standard
from pipeline.media.symptoms import symptoms
from pipeline.media.texts import Keep, Texts
from pipeline.media.tracks import AUDIO_SAMPLE, VIDEO_SAMPLE, Track, decode
from pipeline.sizes import check_size
from pipeline.tasks import PROBE, AudioStream, Limits, MediaInfo, VideoStream

LONGEST_GAP = 3600
"""Seconds without a frame that are still believed. Two frames ten hours apart are a few bytes of input and hours of
output; a slide that stands for an hour is the most that a lecture needs."""

_SLOWEST_SOUND = 1000
"""Samples a second. Telephones take 8000; with one a second, a small file is a day of sound."""

_SEEKABLE = ("mov,mp4", "matroska")
"""Formats with an index that names keyframes; the others are searched by guessing (MPEG-TS, -PS), or have an index that
may be missing or wrong (FLV, AVI)."""
MIDDLE_SAMPLE = 4
"""Frames that are decoded in the middle of a picture: of film that was made fields, two in five are interlaced."""
_SHORT = 64
"""Packets: a picture that has fewer has no middle to speak of."""
_TICK_EVERY = 64
"""Packets between two reports."""
_DECODED_BY = 0.5
"""Where the reading of the packets ends on the way from 0 to 1, if the picture may have to be decoded after it."""

Tick = Callable[[float], None]


def _forget(_name: str, _content: str) -> None:
    pass


def probe(source: Source, limits: Limits, tick: Tick, keep: Keep = _forget) -> MediaInfo:
    """What the media file is, with the times of its keyframes; `keep` gets the files of its text.

    Raises `media_url_not_accessible`, `media_url_file_broken`, `media_url_unsupported_format`,
    `media_filesize_too_large`, `video_file_live`, `video_file_broken`, `audio_file_broken`, `audio_format_unsupported`,
    and what `pipeline.media.limits.check` raises. `tick` gets fractions of 1.
    """
    with open_source(source, limits.formats) as container:
        size = size_of(source)
        check_size(size, limits.max_bytes)
        picture, sounds = _choose(container, limits)
        texts = Texts(container, picture.stream if picture else None)
        cuts = _read(container, [*filter(None, [picture]), *sounds], texts, size, tick)
        source_read = _Source(source=source, container=container, size=size, limits=limits, tick=tick, cuts=cuts)
        media = source_read.info(picture, sounds)
        check(media, limits)
        return texts.told(media, keep, tick)


def _choose(container: InputContainer, limits: Limits) -> tuple[Track | None, list[Track]]:
    """The main picture, if there is any, and every sound that libav has a decoder for."""
    if len(container.streams) > limits.max_streams:
        raise unsupported(f"{len(container.streams)} streams", wanted=f"it with at most {limits.max_streams} streams")
    moving = [stream for stream in container.streams.video if decodable(stream) and not stands_still(stream)]
    sounds = [stream for stream in container.streams.audio if decodable(stream)]
    if not moving and not sounds:
        if not len(container.streams):
            raise PipelineError("media_url_file_broken", reason="there is no stream in it")
        raise _nothing_to_play(container)
    main = min(moving, key=_importance, default=None)
    if main is not None:
        _check_pixels(main.width, main.height, limits)
        # A sample of some frames needs no threads, each of which would hold pictures of its own.
        main.thread_count = 1
    return (
        Track(stream=main, wanted=VIDEO_SAMPLE) if main is not None else None,
        [Track(stream=stream, wanted=AUDIO_SAMPLE) for stream in sounds],
    )


def _importance(stream: AvVideoStream) -> tuple[bool, int, int]:
    """Sorts the main picture first: as ffmpeg chooses, the default one, then the largest, then the first."""
    return not stream.disposition & Disposition.default, -stream.width * stream.height, stream.index


def _nothing_to_play(container: InputContainer) -> PipelineError:
    playable: list[AvVideoStream | AvAudioStream] = [*container.streams.video, *container.streams.audio]
    unknown = [stream for stream in playable if not decodable(stream)]
    if unknown and not container.streams.video:
        return unsupported_sound("unknown")
    if unknown:
        return unsupported("unknown codec", wanted="it in another codec, such as H.264")
    kinds = {"image" if stream.type == "video" else stream.type for stream in container.streams}
    return unsupported(f"only {' and '.join(sorted(kinds))}", wanted="a file with a film or with sound")


def _read(container: InputContainer, tracks: Sequence[Track], texts: Texts, size: int, tick: Tick) -> int:
    """Lead every packet past its track, and past whoever looks for text in it; how often the clock started anew."""
    clock = joined_clock(container)
    by_index, readers = {track.stream.index: track for track in tracks}, texts.readers
    tick(0)
    with reading():
        streams = [*(track.stream for track in tracks), *texts.streams]
        for count, packet in enumerate(packets(container, *streams, clock=clock)):
            if (track := by_index.get(packet.stream_index)) is not None:
                track.feed(packet)
            if (read := readers.get(packet.stream_index)) is not None:
                read(packet)
            if count % _TICK_EVERY == 0:
                tick(_DECODED_BY * min(1, (packet.pos or 0) / size))
    for track in tracks:
        track.finish()
    return clock.cuts if clock is not None else 0


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A source whose packets have all been read."""

    source: Source
    container: InputContainer
    size: int
    limits: Limits
    tick: Tick
    cuts: int
    """How often its clock started anew."""

    def info(self, picture: Track | None, sounds: Sequence[Track]) -> MediaInfo:
        if picture is not None and not picture.packets:
            picture = None  # A header announced it, and it never came.
        tracks = [*filter(None, [picture]), *sounds]
        self._check_whole(tracks)
        video = self._video(picture) if picture else None
        audio = self._audio(sounds, video)
        streams: list[VideoStream | AudioStream] = [*([video] if video else []), *audio]
        start, end = min(stream.start for stream in streams), max(stream.end for stream in streams)
        if max(stream.start for stream in streams) - start > LONGEST_GAP:
            raise PipelineError("video_file_broken", log="picture and sound lie hours apart")
        media = MediaInfo(
            format=self.container.format.name,
            size=self.size,
            duration=end - start,
            start=start,
            video=video,
            audio=audio,
            pictures=pictures(self.container),
            others=self._others(streams),
            seekable=picture is None or self._seekable(picture),
            keyframes=_keyframes(picture) if picture else (),
            probe=PROBE,
        )
        return self._judged(media, tracks)

    def _others(self, streams: Sequence[VideoStream | AudioStream]) -> int:
        """How many streams nothing is made of."""
        used = {stream.index for stream in (*streams, *pictures(self.container))}
        return sum(stream.index not in used and stream.type != "subtitle" for stream in self.container.streams)

    def _judged(self, media: MediaInfo, tracks: Sequence[Track]) -> MediaInfo:
        """With what is unusual about it, and whether it would play as it is."""
        by_index = {track.stream.index: track for track in tracks}
        kept = [stream for stream in (media.video, *media.audio) if stream is not None]
        found = symptoms(self.source, self.container, [(by_index[stream.index], stream) for stream in kept], self.cuts)
        noted = replace(media, notes=notes(media, found))
        return replace(noted, standard=standard(noted))

    def _check_whole(self, tracks: Sequence[Track]) -> None:
        for track in tracks:
            if track.encrypted or codec_tag(track.stream) in ("encv", "enca"):
                raise encrypted()
            entries = track.stream.index_entries
            last = entries[len(entries) - 1] if len(entries) and "mov" in self.container.format.name else None
            if last is not None and last.pos + last.size > self.size:
                log = f"the index points {last.pos} bytes in, past the end"
                raise PipelineError("media_url_file_broken", reason="it ends before its last frame", log=log)
        if not any(track.packets for track in tracks):
            raise PipelineError("media_url_file_broken", reason="there is nothing in its streams")

    # -- picture -------------------------------------------------------------------------------------------------------

    def _video(self, track: Track) -> VideoStream:
        frames = [frame for frame in track.frames if isinstance(frame, av.VideoFrame)]
        if not frames:
            if "enc_key_id" in track.stream.metadata:  # Matroska's ContentEncryption
                raise encrypted()
            raise PipelineError("video_file_broken", log=f"none of {track.packets} packets decodes")
        if track.clock_restarts:
            raise PipelineError("video_file_broken", log="the timestamps start again in the middle")
        frame, stream = frames[0], cast(AvVideoStream, track.stream)
        _check_pixels(frame.width, frame.height, self.limits)
        times = self._presented(track, frames)
        if not times:
            raise PipelineError("video_file_broken", log="no frame has a time")
        rate, constant = measure(times, track.time_base, stream.guessed_rate)
        start = track.seconds(times[0])
        end = track.seconds(times[-1]) + _last_frame(track.seconds(track.tail), 1 / rate, constant)
        rotation, mirrored = orientation(frame)
        fields = first_with_fields(frames) or first_with_fields(self._middle(track))
        return VideoStream(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            width=frame.width,
            height=frame.height,
            sample_aspect_ratio=_sample_aspect_ratio(stream, frame.width),
            rotation=rotation,
            mirrored=mirrored,
            pix_fmt=frame.format.name,
            bits=bits(frame.format.name),
            color=color_of(frame, track.color),
            light=light(frame),
            dolby_vision=dolby_vision(stream),
            interlaced=fields is not None,
            top_field_first=top_field_first(fields) if fields else None,
            profile=profile(stream),
            level=level(stream),
            bitrate=track.bitrate(end - start),
            open_gop=track.leading > 0 if len(track.keys) > 1 else None,
            language=tag(stream.metadata.get("language")),
            title=title(stream),
            rate=rate,
            constant=constant,
            frames=len(times),
            start=start,
            end=end,
        )

    def _middle(self, track: Track) -> list[av.VideoFrame]:
        """Some frames from the middle, where they may tell what the first ones do not: a film may begin progressive."""
        stream = cast(AvVideoStream, track.stream)
        if not may_have_fields(stream) or len(track.pts) < _SHORT:
            return []
        times = sorted(track.pts)
        try:
            self.container.seek(times[len(times) // 2], stream=stream)
            frames = islice(decoded(self.container, stream), MIDDLE_SAMPLE)
            return [frame for frame in frames if isinstance(frame, av.VideoFrame)]
        except av.FFmpegError:  # what cannot be found there cannot be told
            return []

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
        if track.rewound or not self.container.format.name.startswith(_SEEKABLE):
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
        """Every sound that can be decoded. There must be one if the source has any, or has nothing else.

        A picture whose only sound is broken is refused: who sent it would rather know than have it served in silence.
        """
        present = [track for track in tracks if track.packets]
        decoded = [self._sound(track) for track in present if track.frames and track.pts]
        streams = tuple(stream for stream in decoded if stream.channels <= MOST_CHANNELS)
        if decoded and not streams:
            raise unsupported_sound(f"{decoded[0].channels} channels")
        if not streams and (present or video is None):
            silent = [f"stream {track.stream.index} ({track.stream.codec_context.name})" for track in present]
            raise PipelineError("audio_file_broken", log=f"no sound decodes: {', '.join(silent) or 'none has packets'}")
        return streams

    def _sound(self, track: Track) -> AudioStream:
        frame, stream = cast(av.AudioFrame, track.frames[0]), cast(AvAudioStream, track.stream)
        if frame.sample_rate < _SLOWEST_SOUND:
            raise PipelineError("audio_file_broken", log=f"{frame.sample_rate} samples a second")
        times = sorted(track.pts)
        gap = max((later - earlier for earlier, later in pairwise(times)), default=0)
        if track.clock_restarts or track.seconds(gap) > LONGEST_GAP:
            raise PipelineError("audio_file_broken", log="the timestamps jump")
        # The decoder drops the priming samples, so its first frame knows better than the first packet.
        start = frame.pts * (frame.time_base or track.time_base) if frame.pts is not None else track.seconds(times[0])
        tail = track.seconds(track.tail)
        if not 0 < tail <= LONGEST_GAP:
            tail = Fraction(frame.samples, frame.sample_rate)
        end = track.seconds(times[-1]) + max(tail - Fraction(track.trimmed, frame.sample_rate), Fraction(0))
        return AudioStream(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            profile=profile(stream),
            channels=frame.layout.nb_channels,
            layout=frame.layout.name,
            sample_rate=frame.sample_rate,
            language=tag(stream.metadata.get("language")),
            title=title(stream),
            default=bool(stream.disposition & Disposition.default),
            role=role(stream),
            bits=sample_bits(stream),
            bitrate=track.bitrate(end - start),
            start=start,
            end=max(end, start),
        )


def _keyframes(track: Track) -> tuple[Fraction, ...]:
    return tuple(track.seconds(ticks) for ticks in sorted(set(track.keys)))


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise resolution_error("video_resolution_too_high", f"{width}x{height}", limits)


def _sample_aspect_ratio(stream: AvVideoStream, width: int) -> Fraction:
    """The width of a pixel for a height of 1. Absurd ones count as 1: they come from broken headers."""
    ratio = stream.sample_aspect_ratio or Fraction(1)
    return ratio if Fraction(1, 10) <= ratio <= 10 and round(width * ratio) >= 1 else Fraction(1)


def _last_frame(written: Fraction, frame: Fraction, constant: bool) -> Fraction:
    """Seconds that the last frame stands.

    The source's word counts where it says more than rounding: a hold of two frames or more on a constant grid, and
    anything from half a typical frame on a variable one. More than the longest gap is believed nowhere.
    """
    if written > LONGEST_GAP:
        return frame
    return written if written >= frame * (2 if constant else Fraction(1, 2)) else frame
