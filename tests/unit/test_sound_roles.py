"""Several sounds of one asset: each under its own name, for those it is for, and the plain one first."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import m3u8
from presentations import NTSC, audio_track, part, presentation

from pipeline.presentation.dash import render_dash
from pipeline.presentation.hls import render_master
from pipeline.presentation.model import Presentation, Track
from pipeline.stages.package import audio_names, package
from pipeline.tasks import (
    AudioRendition,
    AudioStream,
    Blueprint,
    MediaInfo,
    PackageTask,
    PartsFacts,
    SoundRole,
    to_json,
)

ROLE = "{urn:mpeg:dash:schema:mpd:2011}Role"
ACCESSIBILITY = "{urn:mpeg:dash:schema:mpd:2011}Accessibility"


def sound(
    number: int, language: str = "en", role: SoundRole = "main", *, title: str | None = None, default: bool = True
) -> AudioRendition:
    stream = AudioStream(
        index=number, codec="aac", channels=2, layout="stereo", sample_rate=48_000, language=language, title=title,
        default=default, role=role, start=Fraction(0), end=NTSC.duration,
    )  # fmt: skip
    return AudioRendition(track=f"audio-{number}-{language}", stream=stream, bitrate=128_000)


def packaged(folder: Path, *sounds: AudioRendition) -> tuple[Track, ...]:
    parts = tuple(part(audio_track(sound.track)) for sound in sounds)
    receipt = folder / "receipt.json"
    receipt.write_text(to_json(PartsFacts(parts=parts, media_s=Fraction(1))))
    media = MediaInfo(format="mkv", size=1, duration=NTSC.duration, start=Fraction(0))
    task = PackageTask(asset="a", blueprint=Blueprint(media=media, timeline=NTSC, audio=sounds), receipts=("receipt",))
    return package(task, {"receipt": receipt}, None, lambda _: None).tracks  # type: ignore[arg-type]


def with_sounds(*tracks: Track) -> Presentation:
    shown = presentation()
    return replace(shown, tracks=(*shown.video, *tracks))


def test_every_sound_has_a_name_of_its_own_that_says_what_it_is() -> None:
    sounds = [
        sound(1), sound(2, role="commentary"), sound(3, role="commentary"), sound(4, role="description"),
        sound(5, "de", "description"), sound(6, "und", "commentary"), sound(7, title="Director"), sound(8, "fr", "dub"),
    ]  # fmt: skip
    assert audio_names(sounds) == [
        "English", "English – Commentary", "English – Commentary (2)", "English – Audio description",
        "German – Audio description", "Commentary", "English – Director", "French",
    ]  # fmt: skip


def test_the_plain_sound_is_the_default_though_the_container_calls_all_of_them_so(tmp_path: Path) -> None:
    tracks = packaged(tmp_path, sound(1, role="description"), sound(2, role="commentary"), sound(3), sound(4, "de"))
    assert [track.id for track in tracks if track.default] == ["audio-3-en"]
    assert [track.role for track in tracks] == ["description", "commentary", "main", "main"]


def test_the_default_of_the_source_counts_among_equals(tmp_path: Path) -> None:
    tracks = packaged(tmp_path, sound(1, default=False), sound(2, "de", "dub"), sound(3, role="description"))
    assert [track.id for track in tracks if track.default] == ["audio-2-de"]


def test_hls_offers_a_description_to_those_who_need_it_and_a_commentary_to_nobody_unasked() -> None:
    tracks = packaged_tracks()

    master = m3u8.loads(render_master(with_sounds(*tracks)))

    said = {one.name: (one.autoselect, one.characteristics) for one in master.media if one.type == "AUDIO"}
    assert said == {
        "English": ("YES", None),
        "English – Audio description": ("YES", "public.accessibility.describes-video"),
        "English – Commentary": ("NO", None),
    }


def test_dash_gives_them_their_roles() -> None:
    root = ElementTree.fromstring(render_dash(with_sounds(*packaged_tracks())))

    sets = [one for one in root.iter() if one.get("contentType") == "audio"]
    roles = [[role.get("value") for role in one.iter(ROLE)] for one in sets]
    assert roles == [["main"], ["alternate", "description"], ["alternate", "commentary"]]
    assert [len(list(one.iter(ACCESSIBILITY))) for one in sets] == [0, 1, 0]


def packaged_tracks() -> list[Track]:
    return [
        replace(audio_track("audio-1-en"), name="English", default=True),
        replace(audio_track("audio-2-en"), name="English – Audio description", default=False, role="description"),
        replace(audio_track("audio-3-en"), name="English – Commentary", default=False, role="commentary"),
    ]
