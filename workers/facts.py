"""What ingest learned of a source, as a person reads it: its streams, what is unusual, and whether it would play."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.media import notes, standard
from pipeline.tasks import (
    AttachedPicture,
    AudioStream,
    Blueprint,
    Color,
    DolbyVision,
    Light,
    MediaInfo,
    TextStream,
    VideoStream,
)
from workers.screen import counted, length, size

_BASE_LAYERS = {0: "no base layer", 1: "over HDR10", 2: "over SDR", 4: "over HLG", 6: "over HDR10"}


def show(console: Console, name: str, media: MediaInfo) -> None:
    """Print everything but the times of the keyframes."""
    head = f"{name}  {media.format} · {length(float(media.duration))} · {size(media.size)}"
    console.print(head, markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(_streams(media))
    console.print()
    for title, lines in (("unusual", list(_unusual(media))), ("standard", list(_standard(media)))):
        for number, line in enumerate(lines):
            console.print(f"{title if not number else '':<9} {line}", markup=False, highlight=False, soft_wrap=True)


def made_of(blueprint: Blueprint) -> str:
    """What would be made, in a line."""
    pictures = ", ".join(rung.name for rung in blueprint.rungs)
    if pictures:
        pictures += f" at {_number(blueprint.timeline.rate)} fps"
    texts = sum(text.file is not None for text in blueprint.media.text)
    kinds = (("sound", len(blueprint.audio)), ("text", texts))
    *before, last = filter(None, [pictures, *(counted(count, f"{kind} track") for kind, count in kinds if count)])
    return f"{', '.join(before)} and {last}" if before else last


def _streams(media: MediaInfo) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    for name in ("kind", "codec", "what it is"):
        table.add_column(name, overflow="fold")
    for index, kind, codec, words in _rows(media):
        table.add_row("" if index is None else str(index), kind, codec, escape(" · ".join(filter(None, words))))
    if media.others:
        table.add_row("", "other", "", f"{media.others} that nothing is made of")
    return table


def _rows(media: MediaInfo) -> Iterator[tuple[int | None, str, str, list[str]]]:
    if media.video is not None:
        video = media.video
        yield video.index, "picture", _codec(video.codec, video.profile, video.level), _picture(video, media)
    for sound in media.audio:
        yield sound.index, "sound", _codec(sound.codec, sound.profile), _sound(sound)
    for text in media.text:
        yield text.index, "text", text.codec, _text(text)
    for picture in media.pictures:
        yield picture.index, "cover", picture.codec, _cover(picture)


def _codec(name: str, profile: str | None, level: int | None = None) -> str:
    return " ".join(filter(None, [name, profile, f"L{level}" if level else ""]))


def _picture(video: VideoStream, media: MediaInfo) -> list[str]:
    shown = video.display_size
    turned = (video.width, video.height) != shown
    return [
        f"{video.width}×{video.height}" + (f", shown {shown[0]}×{shown[1]}" if turned else ""),
        f"{_number(video.rate)} fps{'' if video.constant else ' (varies)'}",
        _fields(video),
        _bitrate(video.bitrate),
        f"{video.pix_fmt}, {video.bits} bits",
        _color(video.color),
        _light(video.light),
        _dolby(video.dolby_vision),
        f"{counted(video.frames, 'frame')}, {counted(len(media.keyframes), 'keyframe')}",
        *_name(video.language, video.title),
    ]


def _sound(sound: AudioStream) -> list[str]:
    return [
        f"{sound.sample_rate / 1000:g} kHz {channels(sound)}",
        f"{sound.bits} bits" if sound.bits else "",
        _bitrate(sound.bitrate),
        *_name(sound.language, sound.title),
        sound.role if sound.role != "main" else "",
        "default" if sound.default else "",
    ]


def channels(sound: AudioStream) -> str:
    """The layout, or how many there are where it has no name."""
    return counted(sound.channels, "channel") if sound.layout.endswith(" channels") else sound.layout


def _text(text: TextStream) -> list[str]:
    flags = [("default", text.default), ("forced", text.forced), ("hearing impaired", text.hearing_impaired)]
    return [
        counted(text.cues, "cue"),
        *_name(text.language, text.title),
        *(name for name, said in flags if said),
    ]


def _cover(picture: AttachedPicture) -> list[str]:
    return [f"{picture.width}×{picture.height}"]


def _name(language: str, title: str | None) -> list[str]:
    return [language if language != "und" else "", f"“{title}”" if title else ""]


def _fields(video: VideoStream) -> str:
    if not video.interlaced:
        return ""
    return "interlaced" + (f", {'top' if video.top_field_first else 'bottom'} field first")


def _color(color: Color) -> str:
    said = list(dict.fromkeys(filter(None, (color.primaries, color.transfer, color.matrix, color.range))))
    return "/".join(said)


def _light(light: Light | None) -> str:
    if light is None:
        return ""
    peak = f"mastered to {light.mastering_peak:g} nits" if light.mastering_peak else ""
    content = f"MaxCLL {light.max_content or '?'}, MaxFALL {light.max_average or '?'}"
    return ", ".join(filter(None, [peak, content if light.max_content or light.max_average else ""]))


def _dolby(dolby: DolbyVision | None) -> str:
    if dolby is None:
        return ""
    return f"Dolby Vision {dolby.profile}.{dolby.level}, {_BASE_LAYERS.get(dolby.compatibility, 'unknown base layer')}"


def _bitrate(bitrate: int | None) -> str:
    return "" if bitrate is None else f"{bitrate / 1000:.0f} kb/s"


def _number(value: Fraction) -> str:
    return f"{float(value):.3f}".rstrip("0").rstrip(".")


def _unusual(media: MediaInfo) -> Iterator[str]:
    for word in media.notes:
        yield f"{word}: {notes.SENTENCES.get(word, '')}"
    if not media.notes:
        yield "nothing"


def _standard(media: MediaInfo) -> Iterator[str]:
    if media.standard is None:
        return
    if media.standard.ok:
        yield "yes: it would play as it is"
    for word in media.standard.reasons:
        yield f"no, {word}: {standard.SENTENCES.get(word, '')}"
