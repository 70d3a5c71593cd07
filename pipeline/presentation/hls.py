"""HLS from a presentation: one master for the door, one media playlist a track, one I-frame playlist a picture.

RFC 8216 and Apple's authoring specification for CMAF, protocol version 7. Pure: nothing is read, and nothing that is
not in the presentation is said. Every URI is relative, so an asset can be served below any address.

An edited version needs no tag of its own: a player begins with the first segment that it finds, whatever time that one
tells. Where another init segment follows, playlists say so (EXT-X-DISCONTINUITY, and the EXT-X-MAP from there on), all
of them at the same moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from pipeline import keys
from pipeline.presentation.edits import Played, Stretch, played
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
    shown = played(presentation)
    playlists = {}
    for track in shown.text:
        playlists[_media_key(shown, track)] = _text_playlist(shown, track)
    for track in (*shown.video, *shown.audio):
        playlists[_media_key(shown, track)] = _media_playlist(shown, track)
        if _has_keyframes(track):
            playlists[_iframes_key(shown, track)] = _iframe_playlist(shown, track)
    return playlists


# -- the master -------------------------------------------------------------------------------------------------------


def render_master(presentation: Presentation) -> str:
    """The master playlist, for its place at the door. Where there is no picture, the sound is the variant."""
    shown = played(presentation)
    variants = _variants(shown) if shown.video else _sound_variants(shown)
    return _lines(
        "#EXTM3U",
        f"# {shown.mark}",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        *_sounds(shown),
        *_texts(shown),
        *variants,
        *_iframe_streams(shown),
    )


def _sounds(shown: Played) -> Iterator[str]:
    # AUTOSELECT offers a track for its language: with two of a language a player could not choose (§4.3.4.1.1), unless
    # one is for those who ask their device for descriptions.
    offered: set[tuple[str, bool]] = set()
    for track in _default_first(shown.audio):
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
            URI=_quoted(_from_door(shown, _media_key(shown, track))),
        )


def _texts(shown: Played) -> Iterator[str]:
    offered: set[tuple[object, ...]] = set()
    for track in shown.text:
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
            URI=_quoted(_from_door(shown, _media_key(shown, track))),
        )


def _characteristics(track: Track) -> str | None:
    """What Apple's players sort and show a text by (§4.3.4.1, HLS authoring specification §5)."""
    said = [
        *(["public.machine-generated"] if track.auto_generated else []),
        *(_FOR_THE_DEAF if track.hearing_impaired else []),
    ]
    return _quoted(",".join(said)) if said else None


def _text_group(shown: Played) -> str | None:
    return _quoted(_TEXT_GROUP) if shown.text else None


def _variants(shown: Played) -> Iterator[str]:
    audio = shown.audio
    # A viewer may choose any track of the group, so the largest one counts (§4.3.4.2).
    peak = max((track.bandwidth for track in audio), default=0)
    mean = max((track.average_bandwidth for track in audio), default=0)
    for track in _start_first(shown.video, _START_BITS - mean):
        yield _tag(
            "STREAM-INF",
            BANDWIDTH=track.bandwidth + peak,
            **{"AVERAGE-BANDWIDTH": track.average_bandwidth + mean},
            CODECS=_codecs(track, *audio),
            **_picture(track),
            AUDIO=_quoted(_AUDIO_GROUP) if audio else None,
            SUBTITLES=_text_group(shown),
        )
        yield _from_door(shown, _media_key(shown, track))


def _sound_variants(shown: Played) -> Iterator[str]:
    """One variant that plays the default sound; the others of the group can take its place."""
    audio = _default_first(shown.audio)
    if audio:
        yield _tag(
            "STREAM-INF",
            BANDWIDTH=max(track.bandwidth for track in audio),
            **{"AVERAGE-BANDWIDTH": max(track.average_bandwidth for track in audio)},
            CODECS=_codecs(*audio),
            AUDIO=_quoted(_AUDIO_GROUP),
            SUBTITLES=_text_group(shown),
        )
        yield _from_door(shown, _media_key(shown, audio[0]))


def _iframe_streams(shown: Played) -> Iterator[str]:
    for track in shown.video:
        if _has_keyframes(track):
            pieces = [(ticks, keyframe.size) for _, keyframe, ticks in _keyframes(shown, track)]
            yield _tag(
                "I-FRAME-STREAM-INF",
                BANDWIDTH=peak_bandwidth(pieces, track.timescale),
                **{"AVERAGE-BANDWIDTH": mean_bandwidth(pieces, track.timescale)},
                CODECS=_codecs(track),
                RESOLUTION=_picture(track)["RESOLUTION"],
                URI=_quoted(_from_door(shown, _iframes_key(shown, track))),
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


def _media_playlist(shown: Played, track: Track) -> str:
    return _lines(
        *_opening(shown),
        *_entries(shown, track),
        "#EXT-X-ENDLIST",
    )


def _text_playlist(shown: Played, track: Track) -> str:
    """The captions as one segment as long as the asset: they are small, and a viewer gets all of them at once.

    The target is the playlist's own, which RFC 8216 §6.2.4 allows SUBTITLES renditions of a VOD. Without a
    X-TIMESTAMP-MAP cue time 0 is presentation time 0 (§3.5), where our media begin; those of an edit have one.
    """
    duration = _microseconds(shown.duration.numerator, shown.duration.denominator)
    return _lines(
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(shown.target_duration, -(-duration // 10**6))}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        _extinf(0, duration, 10**6),
        _from_folder(shown, shown.captions(track)),
        "#EXT-X-ENDLIST",
    )


def _iframe_playlist(shown: Played, track: Track) -> str:
    return _lines(
        *_opening(shown, "#EXT-X-I-FRAMES-ONLY"),
        *_iframe_entries(shown, track),
        "#EXT-X-ENDLIST",
    )


def _opening(shown: Played, *more: str) -> Iterator[str]:
    yield "#EXTM3U"
    yield "#EXT-X-VERSION:7"
    yield f"#EXT-X-TARGETDURATION:{shown.target_duration}"
    yield "#EXT-X-PLAYLIST-TYPE:VOD"
    yield "#EXT-X-INDEPENDENT-SEGMENTS"
    yield from more


def _entries(shown: Played, track: Track) -> Iterator[str]:
    for number, stretch in enumerate(shown.stretches(track)):
        yield from _beginning(shown, number, stretch)
        for segment in stretch.segments:
            yield _extinf(segment.start - track.segments[0].start, segment.duration, track.timescale)
            yield _from_folder(shown, segment.key)


def _iframe_entries(shown: Played, track: Track) -> Iterator[str]:
    for number, stretch in enumerate(shown.stretches(track)):
        yield from _beginning(shown, number, stretch)
        for segment, keyframe, ticks in _keyframes_of(stretch):
            yield _extinf(keyframe.tick - track.segments[0].start, ticks, track.timescale)
            yield f"#EXT-X-BYTERANGE:{keyframe.size}@{keyframe.offset}"
            yield _from_folder(shown, segment.key)


def _beginning(shown: Played, number: int, stretch: Stretch) -> Iterator[str]:
    if number:
        yield "#EXT-X-DISCONTINUITY"
    yield _tag("MAP", URI=_quoted(_from_folder(shown, stretch.init)))


def _has_keyframes(track: Track) -> bool:
    return any(segment.keyframes for segment in track.segments)


def _keyframes(shown: Played, track: Track) -> Iterator[tuple[Segment, Keyframe, int]]:
    """Every IDR with its segment, and the ticks to the next one or to the end of its stretch."""
    return (found for stretch in shown.stretches(track) for found in _keyframes_of(stretch))


def _keyframes_of(stretch: Stretch) -> Iterator[tuple[Segment, Keyframe, int]]:
    found = [(segment, keyframe) for segment in stretch.segments for keyframe in segment.keyframes]
    ends = [keyframe.tick for _, keyframe in found[1:]] + [stretch.end]
    for (segment, keyframe), end in zip(found, ends, strict=True):
        yield segment, keyframe, end - keyframe.tick


def _extinf(start: int, ticks: int, timescale: int) -> str:
    # The difference of rounded ends, so that the rounding of a thousand segments does not add up.
    duration = _microseconds(start + ticks, timescale) - _microseconds(start, timescale)
    return f"#EXTINF:{duration // 10**6}.{duration % 10**6:06d},"


def _microseconds(ticks: int, timescale: int) -> int:
    """As `round` does it, a half to the even one; a playlist has thousands of them."""
    whole, rest = divmod(ticks * 10**6, timescale)
    return whole + (2 * rest > timescale or (2 * rest == timescale and whole % 2))


# -- where things lie, and how they are written -----------------------------------------------------------------------


def _media_key(shown: Played, track: Track) -> str:
    return f"{shown.folder}{track.id}.m3u8"


def _iframes_key(shown: Played, track: Track) -> str:
    return f"{shown.folder}{track.id}.iframes.m3u8"


def _from_door(shown: Played, key: str) -> str:
    return keys.relative(key, shown.door)


def _from_folder(shown: Played, key: str) -> str:
    return keys.relative(key, shown.folder)


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
