"""HLS from a presentation: one master for the door, one media playlist a track, one I-frame playlist a picture.

RFC 8216 and Apple's authoring specification for CMAF, protocol version 7. Pure: nothing is read, and nothing that is
not in the presentation is said. Every URI is relative, so an asset can be served below any address.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from fractions import Fraction

from pipeline import keys
from pipeline.presentation.model import Presentation, Track, mean_bandwidth, peak_bandwidth
from pipeline.tasks import Keyframe, Segment

_AUDIO_GROUP = "audio"
_TEXT_GROUP = "text"
_FOR_THE_DEAF = (
    "public.accessibility.transcribes-spoken-dialog",
    "public.accessibility.describes-music-and-sound",
)
_FOR_THE_BLIND = "public.accessibility.describes-video"
_START_BITS = 2_000_000
"""Bits a second to begin with, before a player has measured anything: Apple's authoring specification puts the variant
near 2 Mb/s first."""


def render_playlists(presentation: Presentation) -> dict[str, str]:
    """The playlists that lie in the version's own folder, by storage key: `<track>.m3u8`, `<track>.iframes.m3u8`."""
    playlists = {}
    for track in presentation.text:
        playlists[_media_key(presentation, track)] = _text_playlist(presentation, track)
    for track in (*presentation.video, *presentation.audio):
        playlists[_media_key(presentation, track)] = _media_playlist(presentation, track)
        if _has_keyframes(track):
            playlists[_iframes_key(presentation, track)] = _iframe_playlist(presentation, track)
    return playlists


# -- the master -------------------------------------------------------------------------------------------------------


def render_master(presentation: Presentation) -> str:
    """The master playlist, for its place at the door. Where there is no picture, the sound is the variant."""
    variants = _variants(presentation) if presentation.video else _sound_variants(presentation)
    return _lines(
        "#EXTM3U",
        f"# {presentation.mark}",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        *_sounds(presentation),
        *_texts(presentation),
        *variants,
        *_iframe_streams(presentation),
    )


def _sounds(presentation: Presentation) -> Iterator[str]:
    # AUTOSELECT offers a track for its language: with two of a language a player could not choose (§4.3.4.1.1), unless
    # one is for those who ask their device for descriptions.
    offered: set[tuple[str, bool]] = set()
    for track in _default_first(presentation.audio):
        offer = (track.language, track.role == "description")
        autoselect = offer not in offered and track.role != "commentary"
        offered.add(offer)
        yield _tag(
            "MEDIA",
            TYPE="AUDIO",
            **{"GROUP-ID": _quoted(_AUDIO_GROUP)},
            NAME=_quoted(track.name),
            LANGUAGE=_quoted(track.language) if track.language != "und" else None,
            DEFAULT=_yes(track.default),
            AUTOSELECT=_yes(track.default or autoselect),
            CHARACTERISTICS=_quoted(_FOR_THE_BLIND) if track.role == "description" else None,
            CHANNELS=_quoted(str(track.channels)) if track.channels else None,
            URI=_quoted(_from_door(presentation, _media_key(presentation, track))),
        )


def _texts(presentation: Presentation) -> Iterator[str]:
    offered: set[tuple[object, ...]] = set()
    for track in presentation.text:
        offer = (track.language, track.auto_generated, track.forced, track.hearing_impaired)
        autoselect = offer not in offered
        offered.add(offer)
        yield _tag(
            "MEDIA",
            TYPE="SUBTITLES",
            **{"GROUP-ID": _quoted(_TEXT_GROUP)},
            NAME=_quoted(track.name),
            LANGUAGE=_quoted(track.language) if track.language != "und" else None,
            DEFAULT=_yes(track.default),
            AUTOSELECT=_yes(track.default or track.forced or autoselect),
            FORCED=_yes(track.forced),
            CHARACTERISTICS=_characteristics(track),
            URI=_quoted(_from_door(presentation, _media_key(presentation, track))),
        )


def _characteristics(track: Track) -> str | None:
    """What Apple's players sort and show a text by (§4.3.4.1, HLS authoring specification §5)."""
    said = [
        *(["public.machine-generated"] if track.auto_generated else []),
        *(_FOR_THE_DEAF if track.hearing_impaired else []),
    ]
    return _quoted(",".join(said)) if said else None


def _text_group(presentation: Presentation) -> str | None:
    return _quoted(_TEXT_GROUP) if presentation.text else None


def _variants(presentation: Presentation) -> Iterator[str]:
    audio = presentation.audio
    # A viewer may choose any track of the group, so the largest one counts (§4.3.4.2).
    peak = max((track.bandwidth for track in audio), default=0)
    mean = max((track.average_bandwidth for track in audio), default=0)
    for track in _start_first(presentation.video, _START_BITS - mean):
        yield _tag(
            "STREAM-INF",
            BANDWIDTH=track.bandwidth + peak,
            **{"AVERAGE-BANDWIDTH": track.average_bandwidth + mean},
            CODECS=_codecs(track, *audio),
            **_picture(track),
            AUDIO=_quoted(_AUDIO_GROUP) if audio else None,
            SUBTITLES=_text_group(presentation),
        )
        yield _from_door(presentation, _media_key(presentation, track))


def _sound_variants(presentation: Presentation) -> Iterator[str]:
    """One variant that plays the default sound; the others of the group can take its place."""
    audio = _default_first(presentation.audio)
    if audio:
        yield _tag(
            "STREAM-INF",
            BANDWIDTH=max(track.bandwidth for track in audio),
            **{"AVERAGE-BANDWIDTH": max(track.average_bandwidth for track in audio)},
            CODECS=_codecs(*audio),
            AUDIO=_quoted(_AUDIO_GROUP),
            SUBTITLES=_text_group(presentation),
        )
        yield _from_door(presentation, _media_key(presentation, audio[0]))


def _iframe_streams(presentation: Presentation) -> Iterator[str]:
    for track in presentation.video:
        if _has_keyframes(track):
            pieces = [(ticks, keyframe.size) for _, keyframe, ticks in _keyframes(track)]
            yield _tag(
                "I-FRAME-STREAM-INF",
                BANDWIDTH=peak_bandwidth(pieces, track.timescale),
                **{"AVERAGE-BANDWIDTH": mean_bandwidth(pieces, track.timescale)},
                CODECS=_codecs(track),
                RESOLUTION=_picture(track)["RESOLUTION"],
                URI=_quoted(_from_door(presentation, _iframes_key(presentation, track))),
            )


def _picture(track: Track) -> dict[str, str | None]:
    rate = track.frame_rate
    return {
        "RESOLUTION": f"{track.width}x{track.height}" if track.width and track.height else None,
        "FRAME-RATE": _decimal(rate, 3) if rate else None,
    }


def _codecs(*tracks: Track) -> str:
    return _quoted(",".join(dict.fromkeys(track.codec for track in tracks)))


def _default_first(tracks: Iterable[Track]) -> list[Track]:
    # Some players take the first of a group for the default one.
    return sorted(tracks, key=lambda track: not track.default)


def _start_first(tracks: tuple[Track, ...], bits: int) -> list[Track]:
    """Largest picture first, but before all of them the one to begin with: the largest of at most `bits` a second."""
    start = next((track for track in tracks if track.average_bandwidth <= bits), tracks[-1])
    return sorted(tracks, key=lambda track: track is not start)


# -- media playlists --------------------------------------------------------------------------------------------------


def _media_playlist(presentation: Presentation, track: Track) -> str:
    return _lines(
        *_opening(presentation, track),
        *_entries(presentation, track),
        "#EXT-X-ENDLIST",
    )


def _text_playlist(presentation: Presentation, track: Track) -> str:
    """The captions as one segment as long as the asset: they are small, and a viewer gets all of them at once.

    The target is the playlist's own, which RFC 8216 §6.2.4 allows SUBTITLES renditions of a VOD. Without a
    X-TIMESTAMP-MAP cue time 0 is presentation time 0 (§3.5), where our media begin.
    """
    duration = _microseconds(presentation.duration.numerator, presentation.duration.denominator)
    return _lines(
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(presentation.target_duration, -(-duration // 10**6))}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        _extinf(0, duration, 10**6),
        _from_folder(presentation, presentation.captions(track)),
        "#EXT-X-ENDLIST",
    )


def _iframe_playlist(presentation: Presentation, track: Track) -> str:
    return _lines(
        *_opening(presentation, track, "#EXT-X-I-FRAMES-ONLY"),
        *_iframe_entries(presentation, track),
        "#EXT-X-ENDLIST",
    )


def _opening(presentation: Presentation, track: Track, *more: str) -> Iterator[str]:
    yield "#EXTM3U"
    yield "#EXT-X-VERSION:7"
    yield f"#EXT-X-TARGETDURATION:{presentation.target_duration}"
    yield "#EXT-X-PLAYLIST-TYPE:VOD"
    yield "#EXT-X-INDEPENDENT-SEGMENTS"
    yield from more
    yield _tag("MAP", URI=_quoted(_from_folder(presentation, track.init)))


def _entries(presentation: Presentation, track: Track) -> Iterator[str]:
    for segment in track.segments:
        yield _extinf(segment.start, segment.duration, track.timescale)
        yield _from_folder(presentation, segment.key)


def _iframe_entries(presentation: Presentation, track: Track) -> Iterator[str]:
    for segment, keyframe, ticks in _keyframes(track):
        yield _extinf(keyframe.tick, ticks, track.timescale)
        yield f"#EXT-X-BYTERANGE:{keyframe.size}@{keyframe.offset}"
        yield _from_folder(presentation, segment.key)


def _has_keyframes(track: Track) -> bool:
    return any(segment.keyframes for segment in track.segments)


def _keyframes(track: Track) -> Iterator[tuple[Segment, Keyframe, int]]:
    """Every IDR with its segment, and the ticks to the next one or to the end of the track."""
    found: list[tuple[Segment, Keyframe]] = [
        (segment, keyframe) for segment in track.segments for keyframe in segment.keyframes
    ]
    last = track.segments[-1]
    ends = [keyframe.tick for _, keyframe in found[1:]] + [last.start + last.duration]
    for (segment, keyframe), end in zip(found, ends, strict=True):
        yield segment, keyframe, end - keyframe.tick


def _extinf(start: int, ticks: int, timescale: int) -> str:
    # The difference of rounded ends, so that the rounding of a thousand segments does not add up.
    duration = _microseconds(start + ticks, timescale) - _microseconds(start, timescale)
    return f"#EXTINF:{duration // 10**6}.{duration % 10**6:06d},"


def _microseconds(ticks: int, timescale: int) -> int:
    return round(Fraction(ticks * 10**6, timescale))


# -- where things lie, and how they are written -----------------------------------------------------------------------


def _media_key(presentation: Presentation, track: Track) -> str:
    return f"{presentation.folder}{track.id}.m3u8"


def _iframes_key(presentation: Presentation, track: Track) -> str:
    return f"{presentation.folder}{track.id}.iframes.m3u8"


def _from_door(presentation: Presentation, key: str) -> str:
    return posixpath.relpath(key, keys.public(presentation.asset))


def _from_folder(presentation: Presentation, key: str) -> str:
    return posixpath.relpath(key, presentation.folder)


def _tag(name: str, **attributes: str | int | None) -> str:
    """`#EXT-X-NAME:A=…,B=…`; attributes without a value are left out."""
    return f"#EXT-X-{name}:" + ",".join(f"{key}={value}" for key, value in attributes.items() if value is not None)


def _quoted(text: str) -> str:
    """A quoted-string, which has no escapes: what it must not hold becomes a space or a single quote (§4.2)."""
    return '"' + " ".join(text.replace('"', "'").split()) + '"'


def _yes(value: bool) -> str:
    return "YES" if value else "NO"


def _decimal(value: Fraction, digits: int) -> str:
    scaled = round(value * 10**digits)
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}d}"


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
