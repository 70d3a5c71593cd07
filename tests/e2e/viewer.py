"""What a player gets of an asset through its doors, and when it would show it: parsers that others wrote, and bytes.

Nothing but the two manifests and what they name is looked at. Times are seconds of the player's clock.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from typing import Any

import av
import m3u8
from cuts import Appended, Stream
from makers import read_frame_number
from mpegdash.parser import MPEGDASHParser  # type: ignore[import-untyped]

from pipeline import keys
from pipeline.media.boxes import SegmentScan, scan_segment, timescale
from pipeline.ports import Storage


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A segment as a manifest told of it, and what was there."""

    appended: Appended
    run: int
    """How often a player has begun anew before it: discontinuities, or Periods."""
    begins: Fraction
    lasts: Fraction
    clock: Fraction | None = None
    """Time of the media when the player's clock says 0, as the manifest tells it: HLS does not."""

    @cached_property
    def scan(self) -> SegmentScan:
        return scan_segment(self.appended.media, self.appended.init)

    @property
    def scale(self) -> int:
        return timescale(self.appended.init)

    @property
    def tells(self) -> Fraction:
        """Time of the media, seconds."""
        return Fraction(self.scan.start, self.scale)

    @property
    def shown(self) -> Fraction:
        """When it is shown, by the media's own time."""
        assert self.clock is not None
        return self.tells - self.clock

    @property
    def holds(self) -> Fraction:
        """Seconds of media."""
        return Fraction(self.scan.duration, self.scale)


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """One picture or sound, as long as it is played."""

    kind: str
    fetched: tuple[Fetched, ...]

    @property
    def stream(self) -> Stream:
        return [each.appended for each in self.fetched]

    @property
    def seconds(self) -> Fraction:
        return sum((each.lasts for each in self.fetched), Fraction(0))

    @property
    def runs(self) -> list[list[Fetched]]:
        return [list(run) for _, run in groupby(self.fetched, key=lambda each: each.run)]


@dataclass(frozen=True, kw_only=True)
class View:
    """All that there is behind a door."""

    seconds: Fraction
    """How long it is, by its own account."""
    windows: Sequence[tuple[Fraction, Fraction]]
    """From when to when each run is played."""
    renditions: Mapping[str, Rendition]
    """By the name of the track."""
    keyframes: Mapping[str, Rendition]
    """I-frame playlists: what is shown while a viewer seeks. DASH has none."""

    def of(self, kind: str) -> list[Rendition]:
        return [each for each in self.renditions.values() if each.kind == kind]

    @property
    def streams(self) -> dict[str, Stream]:
        return {name: each.stream for name, each in self.renditions.items()}

    @property
    def lengths(self) -> dict[str, list[int]]:
        """How many segments each run has."""
        return {name: [len(run) for run in each.runs] for name, each in self.renditions.items()}


def opening_number(appended: Appended) -> int:
    """The number that its first frame shows, though the rest of its fragment may not be there."""
    with av.open(io.BytesIO(appended.init + appended.media), "r") as container:
        packet = next(container.demux(video=0))
        frame, *_ = [*packet.decode(), *container.streams.video[0].codec_context.decode(None)]
        return read_frame_number(frame)


# -- HLS --------------------------------------------------------------------------------------------------------------


def through_hls(storage: Storage, asset: str) -> View:
    """Master playlist, media playlists, maps, byte ranges."""
    door = keys.hls_door(asset)
    master = m3u8.loads(storage.get(door).decode())
    pictures = [_rendition(storage, door, each.uri, "video") for each in master.playlists]
    sounds = [_rendition(storage, door, each.uri, "audio") for each in master.media if each.type == "AUDIO"]
    seeking = [_rendition(storage, door, each.uri, "video") for each in master.iframe_playlists]
    renditions = _on_one_clock(dict([*pictures, *sounds]))
    picture = next(each for each in renditions.values() if each.kind == "video")
    return View(
        seconds=picture.seconds,
        windows=[(run[0].begins, run[-1].begins + run[-1].lasts) for run in picture.runs],
        renditions=renditions,
        keyframes=dict(seeking),
    )


def _rendition(storage: Storage, door: str, uri: str, kind: str) -> tuple[str, Rendition]:
    playlist = m3u8.loads(storage.get(_resolved(door, uri)).decode())
    assert playlist.is_endlist
    assert all(round(segment.duration) <= playlist.target_duration for segment in playlist.segments)
    fetched = tuple(_listed(storage, _resolved(door, uri), playlist.segments))
    return posixpath.basename(uri).partition(".")[0], Rendition(kind=kind, fetched=fetched)


def _listed(storage: Storage, playlist: str, segments: Sequence[Any]) -> Iterator[Fetched]:
    run, begins, before = 0, Fraction(0), None
    for segment in segments:
        run += segment.discontinuity
        # Without being told to begin anew, no player would expect another init segment.
        assert segment.discontinuity or before in (None, segment.init_section)
        before, lasts = segment.init_section, Fraction(str(segment.duration))
        init = _ranged(storage, _resolved(playlist, before.uri), before.byterange)
        media = _ranged(storage, _resolved(playlist, segment.uri), segment.byterange)
        yield Fetched(appended=Appended(init=init, media=media), run=run, begins=begins, lasts=lasts)
        begins += lasts


def _ranged(storage: Storage, key: str, byterange: str | None) -> bytes:
    if byterange is None:
        return storage.get(key)
    length, _, offset = byterange.partition("@")
    part = storage.get(key, int(offset), int(length))
    assert len(part) == int(length)
    return part


def _on_one_clock(renditions: dict[str, Rendition]) -> dict[str, Rendition]:
    """With the clock that a player finds: where it begins (anew) the picture tells the time, for the sound as well."""
    pictures = [each for each in renditions.values() if each.kind == "video"]
    clocks = {run[0].run: run[0].tells - run[0].begins for run in pictures[0].runs}
    return {name: replace(each, fetched=_clocked(each.fetched, clocks)) for name, each in renditions.items()}


def _clocked(fetched: Sequence[Fetched], clocks: Mapping[int, Fraction]) -> tuple[Fetched, ...]:
    return tuple(replace(each, clock=clocks[each.run]) for each in fetched)


# -- DASH -------------------------------------------------------------------------------------------------------------


def through_dash(storage: Storage, asset: str) -> View:
    """MPD, Periods, AdaptationSets, Representations, templates and lists."""
    door = keys.dash_door(asset)
    mpd = MPEGDASHParser.parse(storage.get(door).decode())
    found: dict[str, list[Fetched]] = {}
    kinds: dict[str, str] = {}
    windows: list[tuple[Fraction, Fraction]] = []
    for run, period in enumerate(mpd.periods):
        begins = iso_seconds(period.start)
        windows.append((begins, begins + iso_seconds(period.duration)))
        for group, representation in _media(period):
            kinds[representation.id] = group.content_type
            found.setdefault(representation.id, []).extend(_addressed(storage, door, representation, run, period))
    renditions = {name: Rendition(kind=kinds[name], fetched=tuple(each)) for name, each in found.items()}
    seconds = iso_seconds(mpd.media_presentation_duration)
    return View(seconds=seconds, windows=windows, renditions=renditions, keyframes={})


def _media(period: Any) -> Iterator[tuple[Any, Any]]:
    for group in period.adaptation_sets:
        if group.content_type != "text":
            yield from ((group, representation) for representation in group.representations)


def _addressed(storage: Storage, door: str, representation: Any, run: int, period: Any) -> Iterator[Fetched]:
    (told,) = representation.segment_templates or representation.segment_lists
    times = list(_times(told))
    if representation.segment_templates:
        first = told.initialization
        names = [told.media.replace("$Time$", str(start)) for start, _ in times]
    else:
        first = told.initializations[0].source_url
        names = [each.media for each in told.segment_urls]
    init, clock = storage.get(_resolved(door, first)), Fraction(told.presentation_time_offset or 0, told.timescale)
    clock -= iso_seconds(period.start)
    for name, (start, ticks) in zip(names, times, strict=True):
        appended = Appended(init=init, media=storage.get(_resolved(door, name)))
        begins = Fraction(start, told.timescale) - clock
        assert timescale(init) == told.timescale
        yield Fetched(appended=appended, run=run, begins=begins, lasts=Fraction(ticks, told.timescale), clock=clock)


def _times(told: Any) -> Iterator[tuple[int, int]]:
    """(start, duration) of every segment of a SegmentTimeline, ticks."""
    start = 0
    for row in told.segment_timelines[0].Ss:
        start = start if row.t is None else row.t
        for _ in range((row.r or 0) + 1):
            yield start, row.d
            start += row.d


def iso_seconds(iso: str) -> Fraction:
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?([\d.]+)S", iso)
    assert match, iso
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + Fraction(match[3])


def _resolved(base: str, uri: str) -> str:
    assert "://" not in uri
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), uri))
