"""DASH from a presentation: one static MPD, for the door (ISO/IEC 23009-1, DASH-IF IOP).

One AdaptationSet holds the pictures of a codec, between which a player switches, and one each sound and each text (one
WebVTT file beside the media, without segments). Where a track's segments lie in one folder under their start ticks, a
`SegmentTemplate` with `$Time$` names them all; where they do not (a trim mixes folders) a `SegmentList` names each.
Both carry the exact timeline. Pure; every URI is relative.

The media of an edited version tell the time of the source: `presentationTimeOffset` is what a player takes off. There
is one Period, and one more for every seam, where another init segment follows; sets and Representations keep their ids.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from pipeline import keys
from pipeline.presentation.edits import Played, Stretch, played
from pipeline.presentation.model import Presentation, Track

_NAMESPACE = "urn:mpeg:dash:schema:mpd:2011"
# isoff-live allows templates only; lists need the main profile.
_LIVE, _MAIN = "urn:mpeg:dash:profile:isoff-live:2011", "urn:mpeg:dash:profile:isoff-main:2011"
_ROLE = "urn:mpeg:dash:role:2011"
_PURPOSE, _VISUALLY_IMPAIRED = "urn:tva:metadata:cs:AudioPurposeCS:2007", "1"
_CHANNELS = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011"


def render_dash(presentation: Presentation) -> str:
    """The MPD of the version, for its place at the door."""
    shown = played(presentation)
    periods = _periods(shown)
    root = Element("MPD", _document(shown, periods))
    root.append(ElementTree.Comment(f" {shown.mark} "))
    for span in periods:
        _period(root, span, shown)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


@dataclass(frozen=True, kw_only=True)
class _Span:
    """One Period."""

    number: int
    start: Fraction
    """Seconds of the player's clock, to the microsecond, so that Periods touch as they are written."""
    end: Fraction
    offset: Fraction
    """Seconds of the media's clock that the Period begins with."""
    alone: bool


def _periods(shown: Played) -> list[_Span]:
    first = next(iter((*shown.video, *shown.audio)), None)
    seams = shown.seams.get(first.id, ()) if first else ()
    offsets = [shown.start, *(Fraction(tick, first.timescale) for tick in seams if first)]
    starts = [_rounded(offset - shown.start) for offset in offsets]
    ends = [*starts[1:], _rounded(shown.duration)]
    return [
        _Span(number=number, start=start, end=end, offset=offset, alone=not seams)
        for number, (start, end, offset) in enumerate(zip(starts, ends, offsets, strict=True))
    ]


def _document(shown: Played, periods: Sequence[_Span]) -> dict[str, str]:
    stretches = [stretch for track in (*shown.video, *shown.audio) for stretch in shown.stretches(track)]
    lists = not all(map(_named_by_time, stretches)) or (len(periods) > 1 and shown.text)
    return {
        "xmlns": _NAMESPACE,
        "profiles": _MAIN if lists else _LIVE,
        "type": "static",
        "mediaPresentationDuration": _iso(shown.duration),
        # A segment has to be there whole before it plays, and `bandwidth` is a peak over about one.
        "minBufferTime": f"PT{shown.target_duration}S",
    }


def _period(root: Element, span: _Span, shown: Played) -> None:
    period = SubElement(
        root, "Period", id=str(span.number), start=_iso(span.start), duration=_iso(span.end - span.start)
    )
    sets = list(_sets(shown))
    for number, tracks in enumerate(sets):
        _adaptation_set(period, number, tracks, shown, span)
    for number, track in enumerate(shown.text, start=len(sets)):
        _text_set(period, number, track, shown, span)


def _sets(shown: Played) -> Iterator[Sequence[Track]]:
    """Tracks between which a player may switch: the pictures of one codec. Every sound stands alone."""
    for _, pictures in groupby(sorted(shown.video, key=_family), key=_family):
        yield list(pictures)
    for sound in shown.audio:
        yield [sound]


def _family(track: Track) -> str:
    return track.codec.partition(".")[0]


def _adaptation_set(period: Element, number: int, tracks: Sequence[Track], shown: Played, span: _Span) -> None:
    first = tracks[0]
    attributes = {
        "id": str(number),
        "contentType": first.kind,
        "mimeType": f"{first.kind}/mp4",
        "segmentAlignment": "true",
        "startWithSAP": "1",
    }
    if first.kind == "audio" and first.language != "und":
        attributes["lang"] = first.language
    element = SubElement(period, "AdaptationSet", attributes | _bounds(tracks))
    if first.kind == "audio":
        SubElement(element, "Label").text = first.name
        if first.role == "description":
            SubElement(element, "Accessibility", schemeIdUri=_PURPOSE, value=_VISUALLY_IMPAIRED)
        for role in _sound_roles(first):
            SubElement(element, "Role", schemeIdUri=_ROLE, value=role)
    for track in tracks:
        _representation(element, track, shown, span)


def _sound_roles(track: Track) -> list[str]:
    """By the scheme of ISO/IEC 23009-1 §5.8.5.5."""
    place = "main" if track.default else "alternate"
    return [place, track.role] if track.role in ("commentary", "description", "dub") else [place]


def _text_set(period: Element, number: int, track: Track, shown: Played, span: _Span) -> None:
    attributes = {"id": str(number), "contentType": "text", "mimeType": "text/vtt"}
    if track.language != "und":
        attributes["lang"] = track.language
    element = SubElement(period, "AdaptationSet", attributes)
    SubElement(element, "Label").text = track.name
    for role in _text_roles(track):
        SubElement(element, "Role", schemeIdUri=_ROLE, value=role)
    text = SubElement(element, "Representation", id=track.id, bandwidth=str(max(1, track.bandwidth)))
    file = _from_door(shown, shown.captions(track))
    if span.alone:
        SubElement(text, "BaseURL").text = file
    else:
        _whole_text(text, file, span)


def _whole_text(parent: Element, file: str, span: _Span) -> None:
    """The file of the whole version, in each of several Periods.

    Of a file without segments shaka-player counts the times from the beginning of the Period, as it should, dash.js
    from that of the presentation. As the one segment of a list whose offset is where the Period begins they agree:
    shaka-player takes both off each other, dash.js looks at neither.
    """
    ticks = {"presentationTimeOffset": _us(span.start), "duration": _us(span.end - span.start)}
    numbers = {name: str(value) for name, value in ticks.items() if value}
    element = SubElement(parent, "SegmentList", {"timescale": str(10**6)} | numbers)
    SubElement(element, "SegmentURL", media=file)


def _text_roles(track: Track) -> list[str]:
    """By the scheme of ISO/IEC 23009-1 §5.8.5.5."""
    kind = "forced-subtitle" if track.forced else "caption" if track.hearing_impaired else "subtitle"
    return [kind, "main"] if track.default else [kind]


def _bounds(tracks: Sequence[Track]) -> dict[str, str]:
    """The largest picture of a set, so that a player can judge it at once."""
    bounds = {
        "maxWidth": max(track.width or 0 for track in tracks),
        "maxHeight": max(track.height or 0 for track in tracks),
    }
    return {name: str(value) for name, value in bounds.items() if value}


def _representation(parent: Element, track: Track, shown: Played, span: _Span) -> None:
    attributes: dict[str, str | int | Fraction | None] = {
        "id": track.id,
        "codecs": track.codec,
        "bandwidth": track.bandwidth,
        "width": track.width,
        "height": track.height,
        "frameRate": track.frame_rate,  # `30000/1001`, or `25`
        # The ladder makes square pixels only (DESIGN §8).
        "sar": "1:1" if track.kind == "video" else None,
        "audioSamplingRate": track.sample_rate,
    }
    present = {name: str(value) for name, value in attributes.items() if value is not None}
    element = SubElement(parent, "Representation", present)
    if track.channels:
        SubElement(element, "AudioChannelConfiguration", schemeIdUri=_CHANNELS, value=str(track.channels))
    stretch = shown.stretches(track)[span.number]
    if _named_by_time(stretch):
        _segment_template(element, track, stretch, shown, span)
    else:
        _segment_list(element, track, stretch, shown, span)


def _segment_template(parent: Element, track: Track, stretch: Stretch, shown: Played, span: _Span) -> None:
    folder = posixpath.dirname(stretch.segments[0].key)
    element = SubElement(
        parent,
        "SegmentTemplate",
        _clock(track, span),
        initialization=_from_door(shown, stretch.init),
        media=_from_door(shown, f"{folder}/$Time$.m4s"),
    )
    _timeline(element, stretch)


def _segment_list(parent: Element, track: Track, stretch: Stretch, shown: Played, span: _Span) -> None:
    element = SubElement(parent, "SegmentList", _clock(track, span))
    SubElement(element, "Initialization", sourceURL=_from_door(shown, stretch.init))
    _timeline(element, stretch)
    for segment in stretch.segments:
        SubElement(element, "SegmentURL", media=_from_door(shown, segment.key))


def _clock(track: Track, span: _Span) -> dict[str, str]:
    """Ticks a second, and the one at which the Period begins. Sound begins with the AAC frame that holds it."""
    offset = round(span.offset * track.timescale)
    return {"timescale": str(track.timescale)} | ({"presentationTimeOffset": str(offset)} if offset else {})


def _timeline(parent: Element, stretch: Stretch) -> None:
    element = SubElement(parent, "SegmentTimeline")
    for start, duration, repeats in _runs((segment.start, segment.duration) for segment in stretch.segments):
        attributes = {"t": start, "d": duration} | ({"r": repeats} if repeats else {})
        SubElement(element, "S", {name: str(value) for name, value in attributes.items()})


def _runs(segments: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(start, duration, how many more follow) of runs of contiguous segments of one duration, in ticks."""
    runs: list[tuple[int, int, int]] = []
    for start, duration in segments:
        if runs and (run := runs[-1])[1] == duration and start == run[0] + duration * (run[2] + 1):
            runs[-1] = (run[0], duration, run[2] + 1)
        else:
            runs.append((start, duration, 0))
    yield from runs


def _named_by_time(stretch: Stretch) -> bool:
    folder = posixpath.dirname(stretch.segments[0].key) if stretch.segments else ""
    return all(segment.key == f"{folder}/{segment.start}.m4s" for segment in stretch.segments)


def _from_door(shown: Played, key: str) -> str:
    return keys.relative(key, shown.door)


def _rounded(seconds: Fraction) -> Fraction:
    """To the microsecond."""
    return Fraction(_us(seconds), 10**6)


def _us(seconds: Fraction) -> int:
    """Microseconds."""
    return round(seconds * 10**6)


def _iso(seconds: Fraction) -> str:
    """An ISO 8601 duration to the microsecond: `PT597.033333S`."""
    whole, rest = divmod(_us(seconds), 10**6)
    return f"PT{whole}.{rest:06d}".rstrip("0") + "S" if rest else f"PT{whole}S"
