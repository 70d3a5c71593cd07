"""Trim, revert, roll back, clip and export of real assets: what is shown, what is written, whoever dies meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import pytest
from builders import a_profile, a_request
from cuts import assert_beeps, assert_covers
from makers import make_clip, read_frame_number
from presentations import ASSET
from s3_faults import Faults, at_once
from s3_server import S3Server
from shop import Diary, Shop, assert_shows, manifests, objects, streams
from storages import Interrupted
from texts import Said, TextIn, make_text_clip

from pipeline import keys, stages
from pipeline.errors import PipelineError
from pipeline.job import Job, JobStatus
from pipeline.ports import Storage
from pipeline.presentation.edits import played
from pipeline.presentation.model import Presentation
from pipeline.presentation.publish import latest
from pipeline.profile import AudioProfile
from pipeline.recipes import Recipe, recipes
from pipeline.reconcile import Reconciliation
from pipeline.requests import (
    ClipRequest,
    DeleteRequest,
    DuplicateRequest,
    ExportRequest,
    RepackageRequest,
    ReprocessRequest,
    RevertTrimRequest,
    RollBackRequest,
    SubtitleRequest,
    TrimRequest,
)
from pipeline.sandbox import Nursery
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage
from pipeline.storage.s3 import S3Storage
from pipeline.tasks import Patch, Timeline

CLIP, SECOND, THIRD = (f"cl1pcl1pcl{n}" for n in "123")
TIMELINE = Timeline(rate=Fraction(25), frames=300)
ALL = range(300)
INSIDE = TrimRequest(asset_id=ASSET, start_time=1.3, end_time=9.2)
SHOWN = range(33, 230)
"""The frames of `INSIDE`."""
QUIET = a_profile(audio=AudioProfile(bitrate=96_000))
"""Another recipe for sounds, and the same for pictures."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds with two lines of text."""
    folder = tmp_path_factory.mktemp("film")
    clip = make_clip(folder / "clip.mp4", seconds=12, rate=25, size=(640, 360))
    text = TextIn(codec="mov_text", said=[Said(start=1, end=2, text="Here it is"), Said(start=10, end=11, text="Gone")])
    return make_text_clip(folder / "film.mp4", text, clip=clip)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, film: Path) -> Path:
    """A storage with an asset of two rungs, a sound and a text."""
    root = tmp_path_factory.mktemp("made")
    opened(FolderStorage(root), nursery, film)
    return root


@pytest.fixture
def shop(tmp_path: Path, nursery: Nursery, made: Path) -> Shop:
    """Where that asset is, and Redis has just forgotten it."""
    shutil.copytree(made, tmp_path / "storage")
    shop = Shop(Diary(FolderStorage(tmp_path / "storage")), nursery)
    list(Reconciliation(shop.doorman).run())
    return shop


def opened(storage: Storage, nursery: Nursery, film: Path, **fields: Any) -> Shop:
    shop = Shop(Diary(storage), nursery)
    shop.done(wish(film, **fields))
    return shop


def wish(film: Path, **fields: Any) -> Any:
    return a_request(**{"asset_id": ASSET, "url": str(film), "resolutions": ("240p", "360p")} | fields)


def shows(shop: Shop, frames: range, asset: str = ASSET) -> Presentation:
    """Exactly these frames, in every rung and with every sound."""
    now = shop.now(asset)
    assert_shows(shop.storage, now, frames, TIMELINE)
    return now


def captions(shop: Shop, shown: Presentation) -> list[str]:
    """What a player reads, of the first text."""
    text = shop.storage.get(shown.captions(shown.text[0])).decode()
    return [block for block in text.strip().split("\n\n") if "-->" in block]


# -- trim, revert, roll back ------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery, made: Path) -> Shop:
    """The same on each kind of storage."""
    if request.param == "folder":
        return cast(Shop, request.getfixturevalue("shop"))
    server: S3Server = request.getfixturevalue("shared_s3")
    storage = Diary(copied(made, open_storage(server.url(tmp_path.name))))
    shop = Shop(storage, nursery)
    list(Reconciliation(shop.doorman).run())
    return shop


def copied(made: Path, storage: Storage) -> Storage:
    stored = FolderStorage(made)
    for each in stored.list(""):
        storage.put(each.key, stored.get(each.key))
    return storage


def test_a_trim_shows_exactly_what_was_asked_for_and_a_revert_everything(anywhere: Shop) -> None:
    before = set(objects(anywhere.storage, ASSET))

    job = anywhere.done(INSIDE)

    assert anywhere.ran == ["trim: succeeded"]
    now = shows(anywhere, SHOWN)
    assert now.edit is not None
    assert (now.version, now.edit.range, now.edit.trim) == (2, (Fraction(33, 25), Fraction(230, 25)), job.number)
    assert captions(anywhere, now) == ["00:00:00.000 --> 00:00:00.680\nHere it is"]
    assert job.steps["trim"].facts["encoded_frames"] == 17 + 30
    assert {key.split("/")[2] for key in set(objects(anywhere.storage, ASSET)) - before} == {
        "video-240p", "video-360p", "audio-1-en"
    }  # fmt: skip
    anywhere.done(RevertTrimRequest(asset_id=ASSET))
    assert shows(anywhere, ALL).edit is None
    (completed,) = anywhere.events("trim.completed")
    assert completed["version"] == 2


def test_versions_come_back_as_they_were_and_nothing_is_written_twice(anywhere: Shop) -> None:
    """Trim, revert, the same trim, and back again: nothing is encoded a second time."""
    storage = anywhere.storage
    assert isinstance(storage, Diary)
    anywhere.done(INSIDE)
    media = set(objects(storage, ASSET))
    anywhere.done(RevertTrimRequest(asset_id=ASSET))
    again = anywhere.done(INSIDE.model_copy(update={"id": "again"}))
    anywhere.done(RollBackRequest(asset_id=ASSET, version=2))
    anywhere.done(RollBackRequest(id="to-1", asset_id=ASSET, version=1))

    whole, trimmed = manifests(storage, ASSET, 1), manifests(storage, ASSET, 2)
    assert [manifests(storage, ASSET, n) for n in (3, 4, 5, 6)] == [whole, trimmed, trimmed, whole]
    assert again.steps["trim"].facts["reused"] is True
    assert set(objects(storage, ASSET)) == media
    doors = (keys.hls_door(ASSET), keys.dash_door(ASSET))
    public = {key: count for key, count in storage.written.items() if key.startswith(keys.public(ASSET))}
    assert {key for key, count in public.items() if count > 1} <= set(doors)
    assert not [prefix for prefix in storage.removed if prefix.startswith(keys.public(ASSET))]
    shows(anywhere, ALL)


def test_a_trim_of_a_trim_counts_on_the_source(shop: Shop) -> None:
    shop.done(INSIDE)
    shop.done(TrimRequest(id="wider", asset_id=ASSET, start_time=0.5))

    shows(shop, range(13, 300))


def test_cuts_at_keyframes_need_no_source_and_others_say_that_it_is_gone(shop: Shop) -> None:
    shop.storage.delete(keys.source(ASSET, "film.mp4"))

    job = shop.done(TrimRequest(asset_id=ASSET, start_time=2, end_time=10))
    assert job.steps["trim"].facts["encoded_frames"] == 0
    shows(shop, range(50, 250))

    failed = shop.do(TrimRequest(id="between", asset_id=ASSET, start_time=2.04))
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == (JobStatus.FAILED, "cut_needs_source")
    assert "from 4.0 to 12.0 s" in failed.error["hint"]
    shows(shop, range(50, 250))


def test_a_range_of_a_few_frames_is_one_piece(shop: Shop) -> None:
    shop.done(TrimRequest(asset_id=ASSET, start_time=4.2, end_time=4.4))

    now = shows(shop, range(105, 110))
    assert all(len(track.segments) == 1 for track in played(now).video)


def test_sound_without_a_picture_is_cut_between_its_frames(tmp_path: Path, nursery: Nursery) -> None:
    shop = Shop(FolderStorage(tmp_path / "storage"), nursery)
    shop.done(a_request(asset_id=ASSET, url=str(make_clip(tmp_path / "song.m4a", seconds=12, codec=None))))
    shop.storage.delete(keys.sources(ASSET))

    shop.done(INSIDE)

    seen = played(shop.now(ASSET))
    (sound,) = streams(shop.storage, seen, "audio")
    assert_covers(sound, seen.start, seen.end)
    assert_beeps(sound, seen.start, seen.end)
    assert abs(seen.start - Fraction(13, 10)) <= Fraction(1024, 48000)


def test_a_source_that_stays_where_it_lies_is_read_there(tmp_path: Path, nursery: Nursery, film: Path) -> None:
    """For a clip as well, which is another asset than the one that knows the place."""
    shop = opened(FolderStorage(tmp_path / "storage"), nursery, film, in_place=True, resolutions=("240p",))
    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))

    shop.done(TrimRequest(asset_id=CLIP, start_time=1.3, end_time=5.5))

    shows(shop, range(108, 213), CLIP)
    assert listed(shop.storage, keys.sources(ASSET)) == []


# -- whoever dies, whoever comes between ------------------------------------------------------------------------------


class Killed(Exception):
    """The worker is gone."""


def test_a_worker_that_dies_before_it_publishes_leaves_its_pieces_to_the_next(shop: Shop, film: Path) -> None:
    def die(_: int, operation: str, key: str) -> None:
        if operation == "put" and keys.versions(ASSET) in key:
            raise Killed

    storage = shop.storage
    assert isinstance(storage, Interrupted)
    storage.before = die
    shop.ask(INSIDE)
    (attempt,) = (attempt for attempt in shop.begun("trim"))
    with pytest.raises(Killed):
        shop.bench.run(attempt)
    storage.before = lambda *_: None
    made = set(objects(storage, ASSET))
    assert shop.now(ASSET).version == 1

    shop.work()

    assert shop.ran == ["trim: succeeded"]
    assert set(objects(storage, ASSET)) == made
    assert shows(shop, SHOWN).version == 2
    assert isinstance(storage, Diary)
    assert max(storage.written[key] for key in made) == 1


def left_pieces(shop: Shop) -> set[str]:
    """What a trim that died before it published left behind; it is tried again next."""
    before = set(objects(shop.storage, ASSET))
    shop.ask(INSIDE)
    (attempt,) = shop.begun("trim")

    def die() -> None:
        raise Killed

    between(shop, die)
    with pytest.raises(Killed):
        shop.bench.run(attempt)
    return set(objects(shop.storage, ASSET)) - before


@pytest.mark.parametrize("when", ["as it is met", "later"])
def test_pieces_that_go_while_a_trim_meets_them_are_there_again(shop: Shop, when: str) -> None:
    """A janitor asked whose they are before the trim was accepted, and is slow to delete them."""
    storage, pieces, met = cast(Diary, shop.storage), left_pieces(shop), set[str]()

    def janitor(_: int, operation: str, key: str) -> None:
        if operation == "get" and key in pieces - met:
            gone = [key] if when == "as it is met" else list(met)
            met.add(key)
            for each in gone:
                storage.inner.delete(each)

    storage.before = janitor
    shop.work()
    storage.before = lambda *_: None

    assert met
    assert shop.ran == ["trim: succeeded"]
    shows(shop, SHOWN)
    assert pieces <= set(objects(storage, ASSET))


def test_pieces_that_lie_there_with_other_bytes_are_described_as_they_are(shop: Shop) -> None:
    """Sounds as sounds: nobody seeks in them by keyframes."""
    pieces, free = left_pieces(shop), bytes.fromhex("00000008") + b"free"
    for key in pieces:
        shop.storage.put(key, shop.storage.get(key) + free)

    shop.work()

    now = shows(shop, SHOWN)
    for patch in patches(now):
        made = [*patch.head, *patch.tail]
        assert made
        assert all(each.size == len(shop.storage.get(each.key)) for each in made)
        assert {bool(each.keyframes) for each in made} == {"video" in patch.track}
    assert not [key for key in listed(shop.storage, now.folder) if "audio" in key and "iframes" in key]


def test_a_worker_that_dies_after_it_published_is_finished_without_a_stage(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.ask(INSIDE)
    (attempt,) = (attempt for attempt in shop.begun("trim"))
    with monkeypatch.context() as patch:
        patch.setattr(shop.conductor, "finish", dead)
        with pytest.raises(Killed):
            shop.bench.run(attempt)
    assert shop.now(ASSET).version == 2

    shop.work()

    assert shop.ran == ["trim: succeeded"]
    assert shows(shop, SHOWN).version == 2
    (completed,) = shop.events("trim.completed")
    assert completed["version"] == 2


def dead(*_: object) -> bool:
    raise Killed


def between(shop: Shop, happens: Callable[[], None], *, before: str = keys.versions(ASSET)) -> None:
    """Something happens after the pieces were made, and before the version is written; or before the first piece."""
    storage = shop.storage
    assert isinstance(storage, Interrupted)

    def meanwhile(_: int, operation: str, key: str) -> None:
        if operation == "put" and before in key:
            storage.before = lambda *_: None
            happens()

    storage.before = meanwhile


def test_a_reprocess_that_wins_the_race_makes_the_trim_cut_again(shop: Shop) -> None:
    """All pictures are made anew while the trim has its pieces ready: these fit nothing any more."""
    shop.ask(ReprocessRequest(asset_id=ASSET, everything=True, profile="soft", resolutions=("240p",)))
    for attempt in shop.begun("ingest", "transcode", "audio"):
        assert shop.bench.run(attempt) == "succeeded"
    (package,) = shop.begun("package")
    between(shop, lambda: ran(shop.bench.run(package)))

    job = shop.done(INSIDE)

    assert shop.ran == ["trim: edit_changed", "trim: succeeded"]
    assert job.status is JobStatus.SUCCEEDED
    now = shows(shop, SHOWN)
    assert (now.version, [track.id for track in now.video]) == (3, ["video-240p"])


def ran(outcome: str) -> None:
    assert outcome == "succeeded"


def test_a_trim_that_wins_the_race_makes_the_new_rung_be_cut(tmp_path: Path, nursery: Nursery, film: Path) -> None:
    shop = opened(FolderStorage(tmp_path / "storage"), nursery, film, resolutions=("240p",))
    shop.ask(INSIDE)
    (trim,) = shop.begun("trim")
    between(shop, lambda: ran(shop.bench.run(trim)))

    shop.done(ReprocessRequest(asset_id=ASSET, resolutions=("240p", "360p")))

    assert shop.ran[-2:] == ["package: edit_changed", "package: succeeded"]
    assert len(shows(shop, SHOWN).video) == 2


PIECE = ".m4s"


def test_what_changes_while_the_pieces_of_a_trim_are_made_costs_no_attempt(shop: Shop) -> None:
    shop.ask(ReprocessRequest(asset_id=ASSET, everything=True, profile="soft", resolutions=("240p",)))
    for attempt in shop.begun("ingest", "transcode", "audio"):
        assert shop.bench.run(attempt) == "succeeded"
    (package,) = shop.begun("package")
    between(shop, lambda: ran(shop.bench.run(package)), before=PIECE)

    shop.done(INSIDE)

    assert shop.ran == ["trim: succeeded"]
    assert [track.id for track in shows(shop, SHOWN).video] == ["video-240p"]


def test_a_trim_while_the_pieces_of_a_new_rung_are_made_costs_no_attempt(
    tmp_path: Path, nursery: Nursery, film: Path
) -> None:
    shop = opened(FolderStorage(tmp_path / "storage"), nursery, film, resolutions=("240p",))
    shop.done(TrimRequest(asset_id=ASSET, start_time=0.7, end_time=9.2))
    shop.ask(ReprocessRequest(asset_id=ASSET, resolutions=("240p", "360p")))
    for attempt in shop.begun("ingest", "transcode", "audio"):
        assert shop.bench.run(attempt) == "succeeded"
    shop.ask(INSIDE)
    (package,), (trim,) = shop.begun("package"), shop.begun("trim")
    between(shop, lambda: ran(shop.bench.run(trim)), before=PIECE)

    ran(shop.bench.run(package))

    assert len(shows(shop, SHOWN).video) == 2


@pytest.mark.parametrize("at", [PIECE, keys.versions(ASSET)])
def test_a_trim_that_is_overtaken_again_and_again_can_be_cancelled(
    shop: Shop, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it had announced, it has written nothing, and will not before it tries again."""
    monkeypatch.setattr("pipeline.publishing.ROUNDS", 1)
    shop.ask(ReprocessRequest(asset_id=ASSET, everything=True, profile="soft", resolutions=("240p",)))
    for attempt in shop.begun("ingest", "transcode", "audio"):
        assert shop.bench.run(attempt) == "succeeded"
    (package,) = shop.begun("package")
    between(shop, lambda: ran(shop.bench.run(package)), before=at)
    id_ = shop.ask(INSIDE)
    (trim,) = shop.begun("trim")
    assert shop.bench.run(trim) == "edit_changed"

    assert shop.conductor.cancel(id_)

    shop.work()
    assert (shop.job(id_).status, shop.ran) == (JobStatus.CANCELLED, [])
    assert shows(shop, ALL).version == 2


def test_a_trim_that_began_to_write_cannot_be_cancelled_whatever_changes_before_it_tries_again(shop: Shop) -> None:
    """The first attempt dies over its version, and nobody knows whether that comes; the second is overtaken."""
    id_ = shop.ask(INSIDE)
    (trim,) = shop.begun("trim")
    between(shop, unwell, before="presentation.json")
    assert shop.bench.run(trim) == "storage_unavailable"
    shop.ask(ReprocessRequest(asset_id=ASSET, everything=True, profile="soft", resolutions=("240p",)))
    for attempt in shop.begun("ingest", "transcode", "audio"):
        assert shop.bench.run(attempt) == "succeeded"
    shop.later()
    (package,), (again,) = shop.begun("package"), shop.begun("trim")
    between(shop, lambda: ran(shop.bench.run(package)))
    assert shop.bench.run(again) == "edit_changed"

    with pytest.raises(PipelineError, match="asset_busy"):
        shop.conductor.cancel(id_)


def unwell() -> None:
    raise PipelineError("storage_unavailable", reason="a test")


def test_captions_that_come_during_a_trim_are_cut_as_well(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """… whoever publishes first."""
    heard = replace(stages.STAGES["subtitle"], function="said:subtitle")
    monkeypatch.setitem(stages.STAGES, "subtitle", heard)  # type: ignore[arg-type]
    shop.ask(SubtitleRequest(asset_id=ASSET))
    (subtitle,) = shop.begun("subtitle")
    between(shop, lambda: ran(shop.bench.run(subtitle)))

    shop.done(INSIDE)

    now = shows(shop, SHOWN)
    assert (now.version, [track.id for track in now.text]) == (3, ["text-1-en", "text-en-auto"])
    numbers = [track.number for track in now.text]
    assert len({number for number in numbers if number}) == 2
    heard_now = shop.storage.get(now.captions(now.text[1])).decode()
    assert "00:00:01.680 --> 00:00:03.680\nDuring" in heard_now
    assert "00:00:00.000 --> 00:00:00.180\nBefore" in heard_now


def test_captions_of_a_trimmed_asset_are_heard_on_the_source(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = replace(stages.STAGES["subtitle"], function="said:subtitle")
    monkeypatch.setitem(stages.STAGES, "subtitle", heard)  # type: ignore[arg-type]
    shop.done(INSIDE)

    shop.done(SubtitleRequest(asset_id=ASSET))
    shop.done(RevertTrimRequest(asset_id=ASSET))

    now = shows(shop, ALL)
    assert "00:00:03.000 --> 00:00:05.000\nDuring" in shop.storage.get(now.captions(now.text[1])).decode()


# -- what is made later -----------------------------------------------------------------------------------------------


def test_a_rung_that_comes_later_is_cut_like_the_others(tmp_path: Path, nursery: Nursery, film: Path) -> None:
    shop = opened(FolderStorage(tmp_path / "storage"), nursery, film, resolutions=("240p",))
    shop.done(INSIDE)

    shop.done(ReprocessRequest(asset_id=ASSET, resolutions=("240p", "360p")))

    now = shows(shop, SHOWN)
    assert [track.id for track in now.video] == ["video-360p", "video-240p"]
    assert now.edit is not None
    assert now.edit.trim is not None
    later = Shop(shop.storage, nursery)
    list(Reconciliation(later.doorman).run())
    later.done(TrimRequest(id="later", asset_id=ASSET, start_time=0.5))
    now = shows(later, range(13, 300))
    assert not any(patch.seams for patch in patches(now)), "the recipe of the older rung stands in an older history"
    later.done(RevertTrimRequest(asset_id=ASSET))
    shows(later, ALL)


def patches(shown: Presentation) -> Sequence[Patch]:
    assert shown.edit is not None
    return shown.edit.patches


def test_pieces_that_fit_to_no_track_are_shown_with_a_seam(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows the recipe of a rung any more: it is encoded as it would be today."""

    def forgotten(*asked: Any) -> dict[str, Recipe]:
        known = recipes(*asked)
        return known | {
            id_: replace(known[id_], rung=replace(known[id_].rung, profile="main"), known=False)
            for id_ in known
            if id_ == "video-240p"
        }

    monkeypatch.setattr("pipeline.patching.recipes", forgotten)

    shop.done(INSIDE)

    now = shows(shop, SHOWN)
    assert {len(patch.seams) for patch in patches(now)} == {2}
    shop.conductor.profiles = {"default": QUIET}
    own = {patch.track: {piece.init for piece in (*patch.head, *patch.tail)} - {""} for patch in patches(now)}
    assert {track for track, inits in own.items() if inits} == {"video-240p"}
    shop.done(ReprocessRequest(asset_id=ASSET, stages=("audio",)))
    assert {len(patch.seams) for patch in patches(shows(shop, SHOWN))} == {2}


def test_a_sound_that_is_made_again_leaves_the_pictures_alone(shop: Shop) -> None:
    shop.done(INSIDE)
    before = shop.now(ASSET)
    shop.conductor.profiles = {"default": QUIET}

    shop.done(ReprocessRequest(asset_id=ASSET, stages=("audio",)))
    shop.done(RepackageRequest(asset_id=ASSET))

    now = shows(shop, SHOWN)
    assert now.version == 4
    pictures = [patch for patch in patches(now) if "video" in patch.track]
    assert pictures == [patch for patch in patches(before) if "video" in patch.track]


def test_an_asset_may_begin_its_life_trimmed(tmp_path: Path, nursery: Nursery, film: Path) -> None:
    shop = opened(FolderStorage(tmp_path / "storage"), nursery, film, start_time=1.3, end_time=9.2)

    assert shows(shop, SHOWN).version == 1
    shop.done(RevertTrimRequest(asset_id=ASSET))
    shows(shop, ALL)


def test_a_part_that_the_source_does_not_have_is_refused(tmp_path: Path, nursery: Nursery, film: Path) -> None:
    shop = Shop(FolderStorage(tmp_path / "storage"), nursery)

    job = shop.do(wish(film, start_time=12.5))

    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobStatus.FAILED, "trim_range_invalid")
    assert latest(shop.storage, ASSET) is None


def test_a_preview_is_there_at_once_and_changes_nothing(shop: Shop) -> None:
    wanted = TrimRequest(asset_id=ASSET, start_time=5, end_time=7, preview=True)

    shop.done(wanted)
    shop.done(wanted.model_copy(update={"id": "again"}))

    first, second = shop.events("trim.previewed")
    assert first["hls_url"] == second["hls_url"]
    assert shop.now(ASSET).version == 1
    (door,) = (key for key in listed(shop.storage, keys.previews(ASSET)) if key.endswith("video.m3u8"))
    assert shop.storage.get(door).startswith(b"#EXTM3U")
    assert isinstance(shop.storage, Diary)
    # The janitor counts from the newest of its objects, and it is wanted as long again.
    assert shop.storage.written[door] == 2


def listed(storage: Storage, prefix: str) -> list[str]:
    return [stored.key for stored in storage.list(prefix)]


# -- clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_plays_its_part_of_another_asset(shop: Shop) -> None:
    shop.done(INSIDE)
    before = set(objects(shop.storage, ASSET))

    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))

    now = shows(shop, range(75, 275), CLIP)
    assert (now.version, now.edit) == (1, None)
    assert captions(shop, now) == ["00:00:07.000 --> 00:00:08.000\nGone"]
    assert now.text[0].number not in (None, shop.now(ASSET).text[0].number)
    assert all(text.segments[0].key.startswith(keys.public(CLIP)) for text in now.text)
    assert set(objects(shop.storage, ASSET)) == before
    assert listed(shop.storage, keys.references(ASSET)) == [keys.reference(ASSET, CLIP)]
    shows(shop, SHOWN)


def test_a_clip_is_trimmed_and_reverted_on_its_own_times(shop: Shop) -> None:
    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))

    shop.done(TrimRequest(asset_id=CLIP, start_time=1.3, end_time=5.5))
    now = shows(shop, range(108, 213), CLIP)
    assert all(keys.owner(key) == CLIP for key in new_pieces(now))
    shown = shop.document(CLIP)["video"]["edit"]
    assert (shown["start_time"], shown["end_time"]) == (1.32, 5.52)
    shop.done(RevertTrimRequest(asset_id=CLIP))
    shows(shop, range(75, 275), CLIP)


def new_pieces(shown: Presentation) -> list[str]:
    assert shown.edit is not None
    return [piece.key for patch in shown.edit.patches for piece in (*patch.head, *patch.tail)]


def test_a_clip_is_made_again_and_plays_its_part_still(shop: Shop) -> None:
    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))
    shop.done(TrimRequest(asset_id=CLIP, start_time=1.3, end_time=5.5))

    shop.done(ReprocessRequest(asset_id=CLIP, stages=("transcode",), resolutions=("240p",)))

    now = shows(shop, range(108, 213), CLIP)
    assert [keys.owner(track.init) for track in now.video] == [CLIP]
    shop.done(RevertTrimRequest(asset_id=CLIP))
    shows(shop, range(75, 275), CLIP)


def test_a_duplicate_and_a_clip_of_a_clip(shop: Shop) -> None:
    shop.done(DuplicateRequest(asset_id=ASSET, new_id=CLIP))
    shows(shop, ALL, CLIP)
    shop.done(ClipRequest(asset_id=CLIP, new_id=SECOND, start_time=2, end_time=6))

    shop.done(ClipRequest(asset_id=SECOND, new_id=THIRD, start_time=1, end_time=3))

    shows(shop, range(75, 125), THIRD)
    assert len(listed(shop.storage, keys.references(ASSET))) == 3


def test_what_a_clip_plays_stays_when_the_other_asset_is_deleted(shop: Shop) -> None:
    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))

    shop.do(DeleteRequest(ids=(ASSET,)))

    assert latest(shop.storage, ASSET) is None
    assert captions(shop, shows(shop, range(75, 275), CLIP))
    shop.done(TrimRequest(asset_id=CLIP, start_time=1, end_time=5))
    shows(shop, range(100, 200), CLIP)
    shop.done(RevertTrimRequest(asset_id=CLIP))
    shop.do(DeleteRequest(id="clip-too", ids=(CLIP,)))
    assert not list(objects(shop.storage, CLIP))


def test_a_duplicate_of_a_clip_encodes_nothing_also_when_the_source_is_gone(shop: Shop) -> None:
    """… and plays on when the clip between is gone as well, whose pieces it has."""
    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))
    shop.do(DeleteRequest(ids=(ASSET,)))
    media = everybodys(shop)

    shop.done(DuplicateRequest(asset_id=CLIP, new_id=SECOND))

    assert everybodys(shop) == media
    shop.done(DuplicateRequest(id="of-it", asset_id=SECOND, new_id=THIRD))
    for each in (CLIP, SECOND):
        shop.do(DeleteRequest(id=f"delete-{each}", ids=(each,)))
    shows(shop, range(75, 275), THIRD)
    assert everybodys(shop) == media
    shop.done(TrimRequest(asset_id=THIRD, start_time=1, end_time=5))
    shop.done(RevertTrimRequest(asset_id=THIRD))
    shows(shop, range(75, 275), THIRD)


def everybodys(shop: Shop) -> set[str]:
    return {key for asset in (ASSET, CLIP, SECOND, THIRD) for key in objects(shop.storage, asset)}


def test_a_clip_of_what_a_trim_left_plays_the_pieces_of_the_trim(shop: Shop) -> None:
    shop.done(INSIDE)
    media = everybodys(shop)

    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=1.3, end_time=9.2))

    assert everybodys(shop) == media
    base = shows(shop, SHOWN, CLIP).base
    assert base is not None
    assert base.trim is None
    shop.do(DeleteRequest(ids=(ASSET,)))
    shows(shop, SHOWN, CLIP)


@pytest.mark.raises_code("cut_needs_source")
@pytest.mark.parametrize("change", ["trim", "clip"])
def test_a_clip_whose_source_is_gone_is_cut_at_keyframes_and_says_where_they_are(shop: Shop, change: str) -> None:
    """On its own times, and by the name that the caller gave."""
    shop.done(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))
    shop.do(DeleteRequest(ids=(ASSET,)))

    def cut(new: str, start: float, end: float) -> Job:
        if change == "trim":
            return shop.do(TrimRequest(id=new, asset_id=CLIP, start_time=start, end_time=end))
        return shop.do(ClipRequest(id=new, asset_id=CLIP, new_id=new, start_time=start, end_time=end))

    refused = cut("between1234", 1.5, 5.5).error

    assert refused is not None
    assert (refused["code"], refused["params"]["asset"]) == ("cut_needs_source", CLIP)
    assert "from 3.0 to 5.0 s" in refused["hint"]
    tiny = cut("tiny1234567", 1.5, 1.6).error
    assert tiny is not None
    assert "none lies inside" in tiny["hint"]
    assert cut(THIRD, 3.0, 5.0).status is JobStatus.SUCCEEDED
    shows(shop, range(150, 200), CLIP if change == "trim" else THIRD)


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "about to be"])
def test_an_asset_that_is_deleted_while_it_is_clipped_is_not_clipped(shop: Shop, removed: bool) -> None:
    """The deletion came first: the clip sees its tombstone."""
    shop.ask(ClipRequest(asset_id=ASSET, new_id=CLIP, start_time=3, end_time=11))
    (attempt,) = shop.begun("trim")
    shop.ask(DeleteRequest(ids=(ASSET,)))
    if removed:
        shop.sweep()
    else:
        shop.storage.put(keys.tombstone(ASSET), b'{"schema": 1}')

    assert shop.bench.run(attempt) == "asset_deleted"

    shop.work()
    assert listed(shop.storage, keys.public(CLIP)) == []
    assert listed(shop.storage, keys.references(ASSET)) == []


# -- export -----------------------------------------------------------------------------------------------------------


def test_an_export_is_one_file_of_what_is_played(anywhere: Shop, tmp_path: Path) -> None:
    anywhere.done(INSIDE)

    anywhere.done(ExportRequest(asset_id=ASSET, resolution="240p", audio=("en",), captions=("en",)))

    file = tmp_path / "export.mp4"
    file.write_bytes(anywhere.storage.get(keys.mp4(ASSET)))
    with av.open(str(file)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle"]
        assert [read_frame_number(frame) for frame in container.decode(video=0)] == list(SHOWN)
    assert len(anywhere.events("export.completed")) == 1
    assert anywhere.document(ASSET)["video"]["mp4_url"] is not None
    anywhere.done(RevertTrimRequest(asset_id=ASSET))
    assert anywhere.document(ASSET)["video"]["mp4_url"] is None


def test_an_export_that_was_taken_over_writes_nothing(shop: Shop) -> None:
    shop.ask(ExportRequest(asset_id=ASSET))
    (attempt,) = shop.begun("export")
    other = replace(attempt, fence="1-another")

    assert shop.bench.run(other) == "lost"

    assert shop.storage.stat(keys.mp4(ASSET)) is None


@pytest.mark.parametrize("at", ["stat", "put"])
def test_an_export_that_a_trim_overtakes_is_made_of_what_is_played_then(shop: Shop, tmp_path: Path, at: str) -> None:
    """… also where somebody exported that already: a file of more than is played takes no other one's place."""

    def overtaken() -> None:
        shop.ask(INSIDE)
        trim, export = shop.begun("trim"), shop.begun("export")
        ran(shop.bench.run(next(trim)))
        if at == "put":
            shop.ask(ExportRequest(asset_id=ASSET, resolution="240p"))
            ran(shop.bench.run(next(export)))

    meanwhile(shop, at, overtaken)
    shop.done(ExportRequest(asset_id=ASSET, resolution="360p"))

    assert shop.ran == ["export: edit_changed", "export: succeeded"]
    assert pictures(shop, tmp_path) == (360, len(SHOWN))
    assert shop.document(ASSET)["video"]["mp4_url"]


def test_of_two_exports_at_once_the_later_one_stays(shop: Shop, tmp_path: Path) -> None:
    def another() -> None:
        shop.ask(ExportRequest(asset_id=ASSET, resolution="240p"))
        ran(shop.bench.run(next(shop.begun("export"))))

    meanwhile(shop, "put", another)
    shop.done(ExportRequest(asset_id=ASSET, resolution="360p"))

    assert shop.ran == ["export: succeeded"]
    assert pictures(shop, tmp_path) == (360, len(ALL))


def meanwhile(shop: Shop, operation: str, happens: Callable[[], None]) -> None:
    """`happens` right before the file of an export is first looked for, or put into its place."""
    storage = cast(Diary, shop.storage)

    def before(_: int, done: str, key: str) -> None:
        if (done, key) == (operation, keys.mp4(ASSET)):
            storage.before = lambda *_: None
            happens()

    storage.before = before


def pictures(shop: Shop, scratch: Path) -> tuple[int, int]:
    """(height, frames) of the exported file."""
    file = scratch / "export.mp4"
    file.write_bytes(shop.storage.get(keys.mp4(ASSET)))
    with av.open(str(file)) as container:
        (video,) = container.streams.video
        return video.height, sum(1 for _ in container.decode(video))


# -- bad days ---------------------------------------------------------------------------------------------------------


def test_a_storage_that_fails_now_and_then_changes_nothing_of_the_result(
    tmp_path: Path, nursery: Nursery, made: Path, shared_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    storage = open_storage(shared_s3.url(tmp_path.name))
    assert isinstance(storage, S3Storage)
    shop = Shop(copied(made, storage), nursery)
    list(Reconciliation(shop.doorman).run())
    faults = Faults(storage, share=0.1, seed=5)

    job = shop.done(INSIDE)

    faults._share = 0
    assert faults.met
    assert job.status is JobStatus.SUCCEEDED
    assert shows(shop, SHOWN).version == 2
