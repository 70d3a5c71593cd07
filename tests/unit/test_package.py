"""Parts that do not fit together never become a presentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from presentations import NTSC, audio_track, part, video_track

from pipeline.errors import PipelineError
from pipeline.presentation.language_names import NAMES, language_name
from pipeline.stages.package import PackageFacts, audio_names, package
from pipeline.tasks import (
    AudioRendition,
    AudioStream,
    Blueprint,
    MediaInfo,
    PackageTask,
    Part,
    PartsFacts,
    Rung,
    from_json,
    to_json,
)


def rung(name: str, width: int, height: int) -> Rung:
    return Rung(name=name, width=width, height=height, crf=23, maxrate=1, bufsize=2, preset="fast")


def sound(number: int, language: str = "en", *, title: str | None = None, default: bool = False) -> AudioRendition:
    stream = AudioStream(
        index=number, codec="aac", channels=6, layout="5.1", sample_rate=44_100, language=language, title=title,
        default=default, start=Fraction(0), end=NTSC.duration,
    )  # fmt: skip
    return AudioRendition(track=f"audio-{number}-{language}", stream=stream, bitrate=128_000)


RUNGS = (rung("720p", 1280, 720), rung("360p", 640, 360))


def blueprint(*sounds: AudioRendition, rungs: tuple[Rung, ...] = RUNGS) -> Blueprint:
    media = MediaInfo(format="mp4", size=1, duration=NTSC.duration, start=Fraction(0))
    return Blueprint(media=media, timeline=NTSC, rungs=rungs, audio=sounds or (sound(1),))


class NoOutputs:
    def path(self, name: str) -> Path:
        raise AssertionError(name)

    def done(self, name: str) -> None:
        raise AssertionError(name)


def run(folder: Path, plan: Blueprint, *receipts: Sequence[Part]) -> PackageFacts:
    """Package what these receipts hold; the answer has been through JSON, as in the real thing."""
    inputs = {}
    for number, parts in enumerate(receipts):
        path = folder / f"{number}.json"
        path.write_text(to_json(PartsFacts(parts=tuple(parts), media_s=Fraction(1))))
        inputs[str(number)] = path
    ticks: list[float] = []
    task = PackageTask(asset="a", blueprint=plan, receipts=tuple(inputs))
    facts = package(task, inputs, NoOutputs(), ticks.append)
    assert ticks == sorted(ticks)
    assert ticks[-1] == 1.0
    return from_json(PackageFacts, to_json(facts))


def refused(folder: Path, *parts: Part, plan: Blueprint | None = None) -> tuple[str, str]:
    with pytest.raises(PipelineError) as caught:
        run(folder, plan or blueprint(), parts)
    return caught.value.code, f"{caught.value.params['track']}: {caught.value.params.get('detail')}"


def test_chunks_and_split_ladders_become_whole_tracks(tmp_path: Path) -> None:
    """Two chunks of one rung, the other rung from a step of its own, receipts in no order."""
    high, low, audio = video_track("720p"), video_track("360p"), audio_track()

    facts = run(
        tmp_path,
        blueprint(),
        [part(high, segments=high.segments[2:])],
        [part(audio)],
        [part(low, segments=low.segments[:1]), part(low, segments=low.segments[1:])],
        [part(high, segments=high.segments[:2])],
    )

    assert [track.id for track in facts.tracks] == ["video-720p", "video-360p", "audio-1-en"]
    assert facts.tracks[0].segments == high.segments
    assert facts.tracks[1].segments == low.segments
    assert (facts.tracks[1].width, facts.tracks[1].height, facts.tracks[1].rung) == (640, 360, "360p")
    assert {track.frame_rate for track in facts.tracks[:2]} == {NTSC.rate}
    assert facts.tracks[2] == replace(audio, name="English", default=True)


@pytest.mark.raises_code("encoder_mismatch")
def test_another_encoder_is_noticed(tmp_path: Path) -> None:
    high, low, audio = video_track("720p"), video_track("360p"), audio_track()
    other = part(high, digest="other", segments=high.segments[1:])

    code, detail = refused(tmp_path, part(high, segments=high.segments[:1]), other, part(low), part(audio))

    assert code == "encoder_mismatch"
    assert detail.startswith("video-720p")


@pytest.mark.raises_code("parts_incomplete")
def test_a_missing_track_is_noticed(tmp_path: Path) -> None:
    for missing in ("video-720p", "video-360p", "audio-1-en"):
        parts = [
            part(track) for track in (video_track("720p"), video_track("360p"), audio_track()) if track.id != missing
        ]
        assert refused(tmp_path, *parts) == ("parts_incomplete", f"{missing}: no part of it was made")


@pytest.mark.parametrize(
    ("keep", "detail"),
    [
        ([1, 2], "nothing from 0.000 s to 4.004 s"),
        ([0, 2], "nothing from 4.004 s to 8.008 s"),
        ([0, 1], "a segment boundary at 8.008 s is not where the grid has one"),
        ([0, 1, 1, 2], "two segments at 4.004 s"),
    ],
)
def test_a_missing_or_doubled_segment_is_noticed(tmp_path: Path, keep: list[int], detail: str) -> None:
    high, low = video_track("720p"), video_track("360p")

    parts = [part(high), part(low, segments=[low.segments[number] for number in keep]), part(audio_track())]

    assert refused(tmp_path, *parts) == ("parts_incomplete", f"video-360p: {detail}")


def test_a_boundary_beside_the_grid_is_noticed(tmp_path: Path) -> None:
    """The track is whole, but a player that switches at this boundary would stumble."""
    low = video_track("360p")
    first, second, third = low.segments
    moved = [replace(first, duration=first.duration + 1001), replace(second, start=second.start + 1001,
             duration=second.duration - 1001), third]  # fmt: skip

    code, detail = refused(tmp_path, part(video_track("720p")), part(low, segments=moved), part(audio_track()))

    assert (code, detail) == (
        "parts_incomplete", "video-360p: a segment boundary at 4.004 s is not where the grid has one",
    )  # fmt: skip


def test_a_missing_keyframe_is_noticed_and_one_more_is_fine(tmp_path: Path) -> None:
    high, low = video_track("720p"), video_track("360p")
    first = low.segments[0]
    more = replace(first, keyframes=(*first.keyframes, replace(first.keyframes[0], tick=7007)))
    fewer = replace(first, keyframes=first.keyframes[:1])

    run(tmp_path, blueprint(), [part(high), part(low, segments=[more, *low.segments[1:]]), part(audio_track())])

    found = refused(tmp_path, part(high), part(low, segments=[fewer, *low.segments[1:]]), part(audio_track()))
    assert found == ("parts_incomplete", "video-360p: there is no keyframe at 2.002 s")


@pytest.mark.parametrize(("ticks", "fine"), [(-480, False), (-1, False), (0, True), (480, True), (1024, False)])
def test_sound_ends_with_the_asset_or_less_than_a_frame_after_it(tmp_path: Path, ticks: int, fine: bool) -> None:
    """The duration is 482081.6 samples of 48 kHz: the end is moved from the first whole sample after it."""
    audio = audio_track()
    last = audio.segments[-1]
    end = 482_082 + ticks
    moved = [*audio.segments[:-1], replace(last, duration=end - last.start)]
    parts = [part(video_track("720p")), part(video_track("360p")), part(audio, segments=moved)]

    if fine:
        run(tmp_path, blueprint(), parts)
    else:
        assert refused(tmp_path, *parts)[0] == "parts_incomplete"


def test_sound_alone_is_an_asset(tmp_path: Path) -> None:
    facts = run(tmp_path, blueprint(rungs=()), [part(audio_track())])

    assert [track.id for track in facts.tracks] == ["audio-1-en"]


def test_the_source_says_which_sound_is_the_default(tmp_path: Path) -> None:
    plan = blueprint(sound(1, "en"), sound(2, "ta", default=True), sound(3, "de", default=True), rungs=())
    parts = [part(audio_track(each.track)) for each in plan.audio]

    facts = run(tmp_path, plan, parts)

    assert [(track.language, track.name, track.default) for track in facts.tracks] == [
        ("en", "English", False),
        ("ta", "Tamil", True),
        ("de", "German", False),
    ]


def test_sounds_of_one_language_are_told_apart() -> None:
    assert audio_names([sound(1), sound(2)]) == ["English", "English (2)"]
    assert audio_names([sound(1), sound(2, title=" Director's\ncommentary ")]) == [
        "English",
        "English – Director's commentary",
    ]
    assert audio_names([sound(1, "en", title="Stereo"), sound(2, "ta", title="Stereo")]) == ["English", "Tamil"]
    assert audio_names([sound(1, "und"), sound(2, "und", title="Band only")]) == ["Audio", "Band only"]


def test_languages_are_shown_by_name() -> None:
    assert language_name("en") == "English"
    assert language_name("pt-br") == "Portuguese (BR)"
    assert language_name("zh-hant-tw") == "Chinese (Hant, TW)"
    assert language_name("yue") == "yue"
    assert language_name("und") is None
    assert len(NAMES) == 183
    assert len(set(NAMES.values())) == len(NAMES)
    assert all(len(code) == 2 and name for code, name in NAMES.items())
