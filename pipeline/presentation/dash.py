"""DASH from a presentation: one static MPD, for the door (ISO/IEC 23009-1, DASH-IF IOP).

One AdaptationSet holds the pictures of a codec, between which a player switches, and one each sound and each text (one
WebVTT file beside the media, without segments). Where a track's
segments lie in one folder under their start ticks, a `SegmentTemplate` with `$Time$` names them all; where they do not
(a trim mixes folders) a `SegmentList` names each. Both carry the exact timeline. Pure; every URI is relative.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from pipeline import keys
from pipeline.presentation.model import Presentation, Track

_NAMESPACE = "urn:mpeg:dash:schema:mpd:2011"
# isoff-live allows templates only; lists need the main profile.
_LIVE, _MAIN = "urn:mpeg:dash:profile:isoff-live:2011", "urn:mpeg:dash:profile:isoff-main:2011"
_ROLE = "urn:mpeg:dash:role:2011"
_PURPOSE, _VISUALLY_IMPAIRED = "urn:tva:metadata:cs:AudioPurposeCS:2007", "1"
_CHANNELS = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011"


def render_dash(presentation: Presentation) -> str:
    """The MPD of the version, for its place at the door."""
    root = Element("MPD", _document(presentation))
    root.append(ElementTree.Comment(f" {presentation.mark} "))
    period = SubElement(root, "Period", id="0", start="PT0S", duration=_iso(presentation.duration))
    sets = list(_sets(presentation))
    for number, tracks in enumerate(sets):
        _adaptation_set(period, number, tracks, presentation)
    for number, track in enumerate(presentation.text, start=len(sets)):
        _text_set(period, number, track, presentation)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _document(presentation: Presentation) -> dict[str, str]:
    return {
        "xmlns": _NAMESPACE,
        "profiles": _LIVE if all(map(_named_by_time, (*presentation.video, *presentation.audio))) else _MAIN,
        "type": "static",
        "mediaPresentationDuration": _iso(presentation.duration),
        # A segment has to be there whole before it plays, and `bandwidth` is a peak over about one.
        "minBufferTime": f"PT{presentation.target_duration}S",
    }


def _sets(presentation: Presentation) -> Iterator[Sequence[Track]]:
    """Tracks between which a player may switch: the pictures of one codec. Every sound stands alone."""
    for _, pictures in groupby(sorted(presentation.video, key=_family), key=_family):
        yield list(pictures)
    for sound in presentation.audio:
        yield [sound]


def _family(track: Track) -> str:
    return track.codec.partition(".")[0]


def _adaptation_set(period: Element, number: int, tracks: Sequence[Track], presentation: Presentation) -> None:
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
        _representation(element, track, presentation)


def _sound_roles(track: Track) -> list[str]:
    """By the scheme of ISO/IEC 23009-1 §5.8.5.5."""
    place = "main" if track.default else "alternate"
    return [place, track.role] if track.role in ("commentary", "description", "dub") else [place]


def _text_set(period: Element, number: int, track: Track, presentation: Presentation) -> None:
    attributes = {"id": str(number), "contentType": "text", "mimeType": "text/vtt"}
    if track.language != "und":
        attributes["lang"] = track.language
    element = SubElement(period, "AdaptationSet", attributes)
    SubElement(element, "Label").text = track.name
    for role in _text_roles(track):
        SubElement(element, "Role", schemeIdUri=_ROLE, value=role)
    shown = SubElement(element, "Representation", id=track.id, bandwidth=str(max(1, track.bandwidth)))
    SubElement(shown, "BaseURL").text = _from_door(presentation, presentation.captions(track))


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


def _representation(parent: Element, track: Track, presentation: Presentation) -> None:
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
    if _named_by_time(track):
        _segment_template(element, track, presentation)
    else:
        _segment_list(element, track, presentation)


def _segment_template(parent: Element, track: Track, presentation: Presentation) -> None:
    folder = posixpath.dirname(track.segments[0].key)
    element = SubElement(
        parent,
        "SegmentTemplate",
        timescale=str(track.timescale),
        initialization=_from_door(presentation, track.init),
        media=_from_door(presentation, f"{folder}/$Time$.m4s"),
    )
    _timeline(element, track)


def _segment_list(parent: Element, track: Track, presentation: Presentation) -> None:
    element = SubElement(parent, "SegmentList", timescale=str(track.timescale))
    SubElement(element, "Initialization", sourceURL=_from_door(presentation, track.init))
    _timeline(element, track)
    for segment in track.segments:
        SubElement(element, "SegmentURL", media=_from_door(presentation, segment.key))


def _timeline(parent: Element, track: Track) -> None:
    element = SubElement(parent, "SegmentTimeline")
    for start, duration, repeats in _runs((segment.start, segment.duration) for segment in track.segments):
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


def _named_by_time(track: Track) -> bool:
    folder = posixpath.dirname(track.segments[0].key)
    return all(segment.key == f"{folder}/{segment.start}.m4s" for segment in track.segments)


def _from_door(presentation: Presentation, key: str) -> str:
    return posixpath.relpath(key, keys.public(presentation.asset))


def _iso(seconds: Fraction) -> str:
    """An ISO 8601 duration to the microsecond: `PT597.033333S`."""
    whole, rest = divmod(round(seconds * 10**6), 10**6)
    return f"PT{whole}.{rest:06d}".rstrip("0") + "S" if rest else f"PT{whole}S"
