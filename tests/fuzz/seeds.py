"""Twelve small good files, each another container with other codecs: what mutants are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from makers import make_clip

SEEDS: Mapping[str, Mapping[str, Any]] = {
    "h264.mp4": {"audio": "aac"},
    "fragmented.mp4": {"audio": "aac"},
    "hevc.mov": {"codec": "libx265", "audio": "pcm_s16le", "options": {"x265-params": "log-level=none"}},
    "av1.mp4": {"codec": "libsvtav1", "audio": "libopus", "options": {"preset": "11"}},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": "libopus", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "subtitled.mkv": {"codec": "mpeg4", "audio": "flac"},
    "h264.ts": {"audio": "mp2"},
    "mpeg4.avi": {"codec": "mpeg4", "audio": "libmp3lame"},
    "flv1.flv": {"codec": "flv1", "audio": "libmp3lame", "sample_rate": 44100},
    "mpeg2.mxf": {"codec": "mpeg2video", "audio": "pcm_s16le"},
    "mpeg1.mpg": {"codec": "mpeg1video", "audio": "mp2"},
    "opus.ogg": {"codec": None, "audio": "libopus"},
}
_REMUXED = {"fragmented.mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}, "subtitled.mkv": {}}


def make_seeds(folder: Path) -> dict[str, bytes]:
    """By name. The clips last a second and are made once for a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SVT_LOG"] = "1"  # else it tells the world about itself
    return {name: _made(folder / name, dict(options)).read_bytes() for name, options in SEEDS.items()}


def _made(path: Path, options: dict[str, Any]) -> Path:
    if not path.exists():
        clip = path.with_stem(f"{path.stem}-plain") if path.name in _REMUXED else path
        make_clip(clip, seconds=1, size=(160, 90), gop=12, **options)
        if clip != path:
            _remux(clip, path, _REMUXED[path.name], subtitled=path.suffix == ".mkv")
    return path


def _remux(clip: Path, path: Path, options: Mapping[str, str], *, subtitled: bool) -> None:
    """The same packets in a container with other options, and where asked, with subtitles beside them."""
    with av.open(str(clip)) as source, av.open(str(path), "w", options=dict(options)) as out:
        streams: dict[int, Any] = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        text: Any = out.add_mux_stream("subrip") if subtitled else None
        for number, packet in enumerate(packet for packet in source.demux() if packet.dts is not None):
            if text is not None and number % 10 == 0:
                out.mux(_cue(text, number))
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


def _cue(text: Any, number: int) -> Any:
    cue = av.Packet(f"words that are spoken, {number}".encode())
    cue.stream, cue.time_base = text, Fraction(1, 1000)
    cue.pts = cue.dts = number * 20
    cue.duration = 100
    return cue
