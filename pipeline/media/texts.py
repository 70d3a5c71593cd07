"""The text tracks of a source, taken from the packets that probing reads anyway: subtitle streams, and captions that
lie inside the picture.

Every text that libav can decode becomes WebVTT on the asset's timeline; pictures of text (DVD, Blu-ray, DVB) are told
of and left alone. Text is never worth an asset: what cannot be read is left out and noted, and so is what is too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TypeAlias, TypeVar, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from pipeline.media import a53, line21
from pipeline.media.a53 import PictureCaptions
from pipeline.media.labels import title
from pipeline.media.languages import tag
from pipeline.media.markup import from_ass
from pipeline.media.webvtt import InvalidCaptions, StyledCue, write_styled
from pipeline.tasks import MediaInfo, TextStream

UNREADABLE = "text_unreadable"
TOO_MUCH = "text_too_much"
IN_PICTURES = "text_in_pictures"
ONLY_708 = "captions_708_only"
"""Words of `pipeline.media.notes`."""

MOST_CUES = 50_000
MOST_CHARS = 16 << 20
"""Of all tracks together, which share them alike: a film has two thousand cues in each, a day of talk thirty."""
_MOST_TRACKS = 40
_BEAT_EVERY = 10_000
"""Cues, or pairs of bytes, between two signs of life."""
_LINGER = Fraction(5)
"""Seconds that a cue stays whose end the source does not say, if no other one follows before."""
_FORMATS = ("mov", "matroska", "mpegts", "mpeg", "mxf", "asf", "ogg", "flv")
"""Where subtitles are streams. In AVI they are files of their own inside, which nothing of ours opens."""
_PICTURES = frozenset({"dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle", "xsub"})
_LINE21 = "eia_608"
_UNKNOWN = "webvtt"
"""Matroska has a form of WebVTT that libav has no name for (`S_TEXT/WEBVTT`)."""

Feed: TypeAlias = "Callable[[Packet[Stream]], None]"
Keep = Callable[[str, str], None]
"""Gets the name and the content of a file."""


@dataclass(frozen=True, kw_only=True)
class FoundText:
    """One text track, and its WebVTT file; empty where there is none."""

    stream: TextStream
    webvtt: str = ""


class Texts:
    """Gathers the text of one source: feed its packets to `readers`, then ask what is `told`."""

    def __init__(self, container: InputContainer, picture: Stream | None) -> None:
        streams = container.streams.subtitles[:_MOST_TRACKS]
        self._tracks = [_track(stream, container.format.name) for stream in streams]
        for track in self._tracks:
            track.share = 1 / len(streams)
        self._left_out = len(container.streams.subtitles) > len(streams)
        self._picture = None
        if picture is not None and picture.codec_context.codec.canonical_name in a53.CODECS:
            self._picture = PictureCaptions(picture)
            self._picture_index = picture.index

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Streams whose packets are wanted beside those of picture and sound."""
        return tuple(track.stream for track in self._tracks if track.feed is not None)

    @property
    def readers(self) -> Mapping[int, Feed]:
        """Who takes the packets, by index of the stream; the picture's among them."""
        readers = {track.stream.index: track.feed for track in self._tracks if track.feed is not None}
        return readers | ({self._picture_index: self._picture.feed} if self._picture else {})

    def told(self, media: MediaInfo, keep: Keep, tick: Callable[[float], None]) -> MediaInfo:
        """`media` with its text and the notes about it; `keep` gets every file, by its name, as soon as it is there.

        `tick` gets 1, again and again: text is little work after that of reading, but may be some seconds of it.
        """
        notes = {TOO_MUCH} if self._left_out else set()
        streams = []
        for number, text in enumerate(self._found(_asset(media, notes, tick)), start=1):
            file = f"text-{number}.vtt" if text.webvtt else None
            if file is not None:
                keep(file, text.webvtt)
            streams.append(replace(text.stream, file=file))
        return replace(media, text=tuple(streams), notes=tuple(sorted({*media.notes, *notes})))

    def _found(self, asset: _Asset) -> Iterator[FoundText]:
        for track in self._tracks:
            asset.beat()
            yield from track.finish(asset)
        if self._picture is not None:
            yield from _from_line21(self._picture, TextStream(index=None, codec=_LINE21), asset.spoken, asset)


_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class _Asset:
    """Where the text goes."""

    start: Fraction
    """Of the source's clock, in seconds: t = 0 of the asset."""
    end: Fraction
    spoken: str
    """Captions are in the language of the first sound, if anybody knows it."""
    notes: set[str]
    """Gets the words about the text."""
    beat: Callable[[], None]
    """A sign of life."""

    @property
    def duration(self) -> Fraction:
        return self.end - self.start

    def each(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The items, with a sign of life now and then."""
        for number, item in enumerate(items):
            if number % _BEAT_EVERY == 0:
                self.beat()
            yield item


def _asset(media: MediaInfo, notes: set[str], tick: Callable[[float], None]) -> _Asset:
    spoken = media.audio[0].language if media.audio else "und"
    end = media.start + media.duration
    return _Asset(start=media.start, end=end, spoken=spoken, notes=notes, beat=partial(tick, 1))


class _Track:
    """A subtitle stream of which nothing is read: pictures of text, and what libav does not know."""

    feed: Feed | None = None
    share: float = 1
    """Of what all tracks together may have."""

    def __init__(self, stream: SubtitleStream, *, chosen: bool) -> None:
        self.stream = stream
        self._chosen = chosen
        """Whether a default track is one that somebody chose."""

    def said(self, codec: str) -> TextStream:
        """What the container says of it."""
        disposition, metadata = self.stream.disposition, self.stream.metadata
        return TextStream(
            index=self.stream.index,
            codec=codec,
            language=tag(metadata.get("language")),
            title=title(self.stream),
            default=self._chosen and bool(disposition & Disposition.default),
            forced=bool(disposition & Disposition.forced),
            hearing_impaired=bool(disposition & (Disposition.hearing_impaired | Disposition.captions)),
        )

    def finish(self, asset: _Asset) -> Iterable[FoundText]:
        context = cast(SubtitleCodecContext | None, self.stream.codec_context)
        codec = context.codec.canonical_name if context is not None else "unknown"
        asset.notes.add(IN_PICTURES if codec in _PICTURES else UNREADABLE)
        return [FoundText(stream=self.said(codec))]


def _track(stream: SubtitleStream, container: str) -> _Track:
    context = cast(SubtitleCodecContext | None, stream.codec_context)
    # In MP4 it says that a track is enabled, which the first of every kind is.
    chosen = not container.startswith("mov")
    if context is None and container.startswith("matroska"):
        context = cast(SubtitleCodecContext, av.CodecContext.create(_UNKNOWN, "r"))
        return _UnknownTrack(stream, context, chosen=chosen)
    if context is None or context.codec.canonical_name in _PICTURES or not container.startswith(_FORMATS):
        return _Track(stream, chosen=chosen)
    if context.codec.canonical_name == _LINE21:
        return _CaptionTrack(stream, chosen=False)
    return _TextTrack(stream, context, chosen=chosen)


@dataclass(frozen=True, kw_only=True)
class _Event:
    """One cue in ticks of its stream."""

    start: int
    end: int | None
    """None: nobody says."""
    payload: str
    top: bool


class _TextTrack(_Track):
    """A stream of text, decoded packet by packet."""

    def __init__(self, stream: SubtitleStream, context: SubtitleCodecContext, *, chosen: bool) -> None:
        super().__init__(stream, chosen=chosen)
        self._context = context
        # libav refuses a cue that is no UTF-8; we repair it.
        context.options = {"sub_charenc_mode": "ignore"}
        self._events: list[_Event] = []
        self._chars = 0
        self._broken = 0
        self.feed = self._feed

    def _feed(self, packet: Packet[Stream]) -> None:
        if packet.pts is None or self._full:
            return
        try:
            decoded = self._context.decode2(packet)
        except (av.FFmpegError, ValueError, UnicodeDecodeError):
            self._broken += 1
            return
        for rect in decoded or ():
            if isinstance(rect, AssSubtitle):
                self._keep(packet, *from_ass(rect.ass))

    @property
    def _full(self) -> bool:
        return len(self._events) >= MOST_CUES * self.share or self._chars >= MOST_CHARS * self.share

    def _keep(self, packet: Packet[Stream], payload: str, top: bool) -> None:
        if payload and packet.pts is not None:
            end = packet.pts + packet.duration if packet.duration else None
            self._events.append(_Event(start=packet.pts, end=end, payload=payload, top=top))
            self._chars += len(payload)

    def finish(self, asset: _Asset) -> Iterable[FoundText]:
        if self._full:
            asset.notes.add(TOO_MUCH)
        if self._broken and not self._events:
            asset.notes.add(UNREADABLE)
        return [_written(self.said(self._codec), self._timed(asset.start), asset)]

    @property
    def _codec(self) -> str:
        return self._context.codec.canonical_name

    def _timed(self, origin: Fraction) -> Iterator[line21.Shown]:
        """The events in seconds of the asset; those without an end stay until the next one."""
        events, tick = sorted(self._events, key=lambda event: event.start), self.stream.time_base or Fraction(1)
        for event, following in pairwise([*events, None]):
            assert event is not None
            lasts = _LINGER if following is None else min(_LINGER, (following.start - event.start) * tick)
            start = event.start * tick - origin
            end = event.end * tick - origin if event.end is not None else start + lasts
            yield line21.Shown(start=start, end=end, payload=event.payload, top=event.top)


class _UnknownTrack(_TextTrack):
    """A text stream whose codec libav does not know: its packets are believed to be WebVTT as long as they are text."""

    def _feed(self, packet: Packet[Stream]) -> None:
        if not self._broken and not _is_text(bytes(packet)):
            self._broken, self._events = 1, []
        if not self._broken:
            super()._feed(packet)

    def finish(self, asset: _Asset) -> Iterable[FoundText]:
        if self._events or not self._broken:
            return super().finish(asset)
        return _Track.finish(self, asset)


class _CaptionTrack(_Track):
    """A track of CEA-608 pairs beside the picture (QuickTime's `c608`)."""

    def __init__(self, stream: SubtitleStream, *, chosen: bool) -> None:
        super().__init__(stream, chosen=chosen)
        self._captions = PictureCaptions(stream)
        self.feed = self._captions.feed

    def finish(self, asset: _Asset) -> Iterable[FoundText]:
        said = self.said(_LINE21)
        spoken = asset.spoken if said.language == "und" else said.language
        return _from_line21(self._captions, said, spoken, asset)


def _from_line21(captions: PictureCaptions, said: TextStream, spoken: str, asset: _Asset) -> Iterator[FoundText]:
    """One text track a channel. The first one is in the language that is spoken; of the others nobody knows."""
    if captions.overflowed:
        asset.notes.add(TOO_MUCH)
    if captions.only_708:
        asset.notes.add(ONLY_708)
    for number, shown in line21.decode(asset.each(captions.pairs()), asset.end).items():
        first = number == 1
        if len(shown) >= line21.MOST_CUES:
            asset.notes.add(TOO_MUCH)
        stream = replace(
            said,
            language=spoken if first else "und",
            title=said.title if first else f"CC{number}",
            hearing_impaired=True,
        )
        shifted = (replace(cue, start=cue.start - asset.start, end=cue.end - asset.start) for cue in shown)
        yield _written(stream, shifted, asset)


def _written(stream: TextStream, cues: Iterable[line21.Shown], asset: _Asset) -> FoundText:
    """The track with its file. Cues outside of [0, duration) are cut, and what is said twice at once is said once."""
    clipped = (_clipped(cue, asset.duration) for cue in asset.each(cues))
    ordered = sorted(dict.fromkeys(filter(None, clipped)), key=lambda cue: (cue.start_ms, cue.end_ms))
    if not ordered:
        return FoundText(stream=stream)
    try:
        return FoundText(stream=replace(stream, cues=len(ordered)), webvtt=write_styled(ordered))
    except InvalidCaptions:
        asset.notes.add(UNREADABLE)
        return FoundText(stream=stream)


def _clipped(cue: line21.Shown, duration: Fraction) -> StyledCue | None:
    start, end = round(max(cue.start, Fraction(0)) * 1000), round(min(cue.end, duration) * 1000)
    return StyledCue(start_ms=start, end_ms=end, payload=cue.payload, top=cue.top) if start < end else None


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return not text.lstrip().startswith(("<?xml", "<Subtitle", "<subtitle")) and all(
        char.isprintable() or char.isspace() for char in text
    )


__all__ = ["IN_PICTURES", "ONLY_708", "TOO_MUCH", "UNREADABLE", "FoundText", "Texts"]
