"""What `reelway process` writes is understood by parsers that others wrote, and tells the truth about the source."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import m3u8
import pytest
from assets import MadeAsset
from mpegdash.parser import MPEGDASHParser

from pipeline import keys

AAC_FRAME = Fraction(1024, 48_000)

pytestmark = pytest.mark.slow


def folder(made: MadeAsset) -> Path:
    return made.root / keys.public(made.id)


def master(made: MadeAsset) -> m3u8.M3U8:
    return m3u8.load(str(made.root / keys.hls_door(made.id)))


def playlists(made: MadeAsset) -> Iterator[tuple[Path, m3u8.M3U8]]:
    """Every playlist that the master leads to: pictures, sounds, I-frames, captions."""
    door = master(made)
    for each in (*door.playlists, *door.media, *door.iframe_playlists):
        path = folder(made) / each.uri
        yield path, m3u8.load(str(path))


def representations(made: MadeAsset) -> list[Any]:
    mpd = MPEGDASHParser.parse(str(made.root / keys.dash_door(made.id)))
    return [each for group in mpd.periods[0].adaptation_sets for each in group.representations]


def timeline(template: Any) -> list[tuple[int, int]]:
    """(start, duration) of every segment, in ticks."""
    told: list[tuple[int, int]] = []
    for run in template.segment_timelines[0].Ss:
        start = run.t if run.t is not None else told[-1][0] + told[-1][1]
        told += [(start + number * run.d, run.d) for number in range((run.r or 0) + 1)]
    return told


def seconds(iso: str) -> Fraction:
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?([\d.]+)S", iso)
    assert match, iso
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + Fraction(match[3])


def test_hls_durations_are_the_sources_to_the_frame(asset_folder: MadeAsset) -> None:
    frame = 1 / asset_folder.rate
    found = 0
    for path, playlist in playlists(asset_folder):
        total = sum(Fraction(str(segment.duration)) for segment in playlist.segments)
        slack = AAC_FRAME if path.name.startswith("audio") else frame
        assert abs(total - asset_folder.duration) <= slack, path.name
        assert playlist.is_endlist
        found += 1
    assert found == 2 * asset_folder.rungs + 1


def test_hls_playlists_share_one_target_duration_that_no_segment_exceeds(asset_folder: MadeAsset) -> None:
    found = [playlist for _, playlist in playlists(asset_folder)]

    (target,) = {playlist.target_duration for playlist in found}
    assert max(round(segment.duration) for playlist in found for segment in playlist.segments) <= target


def test_hls_uris_lead_to_files_and_ranges_lie_inside_of_them(asset_folder: MadeAsset) -> None:
    for path, playlist in playlists(asset_folder):
        assert playlist.segment_map
        for each in (*playlist.segment_map, *playlist.segments):
            file = path.parent / each.uri
            size = file.stat().st_size
            assert size > 0
            if each.byterange:
                length, _, offset = each.byterange.partition("@")
                assert int(offset or 0) + int(length) <= size


def test_hls_boundaries_agree_in_all_rungs(asset_folder: MadeAsset) -> None:
    door = master(asset_folder)
    cuts = {
        tuple(segment.duration for segment in m3u8.load(str(folder(asset_folder) / each.uri)).segments)
        for each in door.playlists
    }
    assert len(door.playlists) == asset_folder.rungs
    assert len(cuts) == 1
    assert len(next(iter(cuts))) > 1


def test_dash_durations_are_the_sources_to_the_frame(asset_folder: MadeAsset) -> None:
    mpd = MPEGDASHParser.parse(str(asset_folder.root / keys.dash_door(asset_folder.id)))
    frame = 1 / asset_folder.rate
    assert abs(seconds(mpd.media_presentation_duration) - asset_folder.duration) <= frame

    found = representations(asset_folder)
    assert len(found) == asset_folder.rungs + 1
    for each in found:
        template = each.segment_templates[0]
        told = timeline(template)
        slack = AAC_FRAME if each.id.startswith("audio") else frame
        assert told[0][0] == 0
        assert abs(Fraction(sum(told[-1]), template.timescale) - asset_folder.duration) <= slack, each.id
        assert all(start + ticks == following for (start, ticks), (following, _) in itertools.pairwise(told))


def test_dash_and_hls_name_the_same_files(asset_folder: MadeAsset) -> None:
    dash = set()
    for each in representations(asset_folder):
        template = each.segment_templates[0]
        names = [template.media.replace("$Time$", str(start)) for start, _ in timeline(template)]
        dash |= {(folder(asset_folder) / name).resolve() for name in (template.initialization, *names)}
    hls = {
        (path.parent / each.uri).resolve()
        for path, playlist in playlists(asset_folder)
        for each in (*playlist.segment_map, *playlist.segments)
    }
    assert dash == hls
    assert all(file.is_file() for file in dash)
