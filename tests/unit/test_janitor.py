"""The janitor removes what has no owner, and nothing that has one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from presentations import ASSET, NTSC, audio_track, text_track, video_track
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.janitor import Belongings, Finding, Janitor, Reason, belongings
from pipeline.job import AssetRecord, Commit, EventDraft, Job, JobStatus
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.past import keep
from pipeline.ports import Moved, Storage
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, Track, marked_version
from pipeline.presentation.publish import named, publish
from pipeline.requests import new_asset_id
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import as_data

NOW_MS = 1_900_000_000_000
HOUR_MS = 3_600_000
OLD = NOW_MS - 25 * HOUR_MS
VERY_OLD = NOW_MS - 8 * 24 * HOUR_MS
YOUNG = NOW_MS - HOUR_MS
UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


class World:
    """A folder with assets, and who knows of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = FolderStorage(root)
        self.store = MemoryJobStore(ManualClock(NOW_MS))
        self.busy: set[str] = set()
        self.known: set[str] = set()
        self.document: dict[str, Any] = {}
        """Of those that are known."""
        self.held = self.store.asset
        self.store.asset = self._asset  # type: ignore[method-assign]

    def _asset(self, asset_id: str) -> AssetRecord | None:
        if asset_id not in self.known:
            return self.held(asset_id)
        return AssetRecord(id=asset_id, document=self.document, version=1, epoch=1, sequence=1)

    def put(self, key: str, body: bytes = b"x", *, at: int = OLD) -> str:
        self.storage.put(key, body)
        self.date(key, at)
        return key

    def date(self, prefix: str, at: int) -> None:
        for stored in self.storage.list(prefix):
            os.utime(self.root / stored.key, ns=(at * 1_000_000, at * 1_000_000))

    def publish(self, *tracks: Track, step: str = "package", at: int = OLD) -> Presentation:
        """A version with all of its objects, as old as `at`."""
        effect = Effect(job="job-1", step=step)
        for track in tracks:
            for key in filter(None, (track.init, *(segment.key for segment in track.segments))):
                self.storage.put(key, b"media")
        made = publish(
            self.storage,
            ASSET,
            effect,
            lambda last: compose(last, asset=ASSET, tracks=tracks, effect=effect, duration=NTSC.duration),
        )
        self.date("", at)
        return made

    def living(self) -> frozenset[str]:
        """An asset of two versions with its source, facts, text, history and captions. Its keys."""
        source = (keys.source(ASSET, "a.mp4"), keys.media(ASSET), keys.text(ASSET, "text-1.vtt"))
        for key in source:
            self.put(key)
        self.put(keys.history(ASSET, "job-1"), a_history())
        self.publish(video_track(), audio_track())
        self.put(f"{keys.PUBLIC}/{ASSET}/subtitles/text-en/6f7a8b.words.json")
        self.publish(text_track(), step="subtitle")
        return frozenset(self.left())

    def left(self) -> list[str]:
        return [stored.key for stored in self.storage.list("")]

    def janitor(self, storage: Storage | None = None, *, dry_run: bool = False) -> Janitor:
        return Janitor(
            storage or self.storage, self.store, self.busy.__contains__, ManualClock(NOW_MS), dry_run=dry_run
        )

    def sweep(self, *, dry_run: bool = False) -> list[Finding]:
        return list(self.janitor(dry_run=dry_run).sweep())

    def reasons(self) -> list[str]:
        return [finding.reason.value for finding in self.sweep()]


@pytest.fixture(scope="module", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Nothing here is about the disk, and hundreds of assets are written to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "root")


# -- the whole asset --------------------------------------------------------------------------------------------------


def orphan(world: World, asset: str = ASSET, *, at: int = OLD) -> list[str]:
    """What a fleet leaves whose Redis forgot the job: a source, its facts, a receipt, a claim and segments."""
    names = [
        keys.source(asset, "a.mov"),
        keys.media(asset),
        keys.claim(asset),
        keys.receipt(asset, "job-1", "video-1", "1-abc"),
        keys.track(asset, "video-720p", "0a1b2c") + "0.m4s",
    ]
    return [world.put(key, b"12345", at=at) for key in names]


@pytest.mark.parametrize("asset", [ASSET, UUID])
def test_what_nobody_published_and_nobody_knows_goes_as_a_whole(world: World, asset: str) -> None:
    orphan(world, asset)

    (finding,) = world.sweep()

    assert (finding.reason, finding.asset, finding.objects, finding.bytes) == (Reason.ORPHAN, asset, 5, 25)
    assert world.left() == []


def test_a_claim_alone_that_nobody_used_goes(world: World) -> None:
    world.put(keys.claim(ASSET))

    assert world.reasons() == ["orphan"]
    assert world.left() == []


@pytest.mark.parametrize("owner", ["a record", "an open job", "a young object", "a clip"])
def test_an_unpublished_asset_with_an_owner_stays(world: World, owner: str) -> None:
    orphan(world)
    if owner == "a record":
        world.known.add(ASSET)
    if owner == "an open job":
        world.busy.add(ASSET)
    if owner == "a young object":
        world.put(keys.receipt(ASSET, "job-1", "video-2", "1-abc"), at=YOUNG)
    if owner == "a clip":
        world.put(keys.reference(ASSET, "clipclipcli"), at=YOUNG)
    before = world.left()

    assert world.reasons() == []
    assert world.left() == before


def test_an_asset_that_a_store_holds_is_known(tmp_path: Path) -> None:
    """The question is the store's own: nothing is pretended here."""
    world = World(tmp_path)
    world.store = MemoryJobStore(ManualClock(NOW_MS))
    for asset in (ASSET, UUID):
        world.put(keys.media(asset))
    world.store.append(ASSET, EventDraft(id="1", type="request.refused", data={}))

    assert [finding.asset for finding in world.sweep()] == [UUID]


@pytest.mark.parametrize("why", [Reason.ORPHAN, Reason.DELETED])
def test_the_public_side_goes_first_and_of_that_the_doors(world: World, why: Reason) -> None:
    orphan(world)
    world.put(keys.hls_door(ASSET))
    if why is Reason.DELETED:
        deleted(world, at=OLD + 1)
    removed: list[str] = []

    def see(_: int, operation: str, key: str) -> None:
        if operation == "delete":
            removed.append(key)

    (finding,) = world.janitor(Interrupted(world.storage, see)).sweep()

    assert finding.reason is why
    assert removed[:3] == [keys.hls_door(ASSET), keys.dash_door(ASSET), keys.public(ASSET)]


# -- deletions that broke off -----------------------------------------------------------------------------------------


def deleted(world: World, *, at: int = OLD) -> str:
    return world.put(keys.tombstone(ASSET), b"{}", at=at)


def test_a_deletion_that_broke_off_is_finished_at_once_and_its_tombstone_stays(world: World) -> None:
    world.living()
    world.date("", YOUNG - 1)
    stone = deleted(world, at=YOUNG)

    (finding,) = world.sweep()

    assert finding.reason is Reason.DELETED
    assert world.left() == [stone]
    assert world.reasons() == []
    assert world.left() == [stone]


def test_a_deletion_that_breaks_off_again_and_again_ends_in_deleted(world: World) -> None:
    class Died(BaseException):
        pass

    world.living()
    stone = deleted(world, at=YOUNG)

    @contextmanager
    def dying(moment: int) -> Iterator[Storage]:
        def die(count: int, *_: str) -> None:
            if count == moment:
                raise Died

        yield Interrupted(world.storage, die)

    for moment in range(1, 100):
        with dying(moment) as storage:
            try:
                list(world.janitor(storage).sweep())
            except Died:
                continue
            break

    assert moment < 99
    assert world.left() == [stone]


@pytest.mark.parametrize("owner", ["an open job", "a clip"])
def test_a_deletion_waits_for_an_open_job_and_for_clips(world: World, owner: str) -> None:
    world.living()
    deleted(world, at=OLD + 1)
    if owner == "an open job":
        world.busy.add(ASSET)
    else:
        world.put(keys.reference(ASSET, "clipclipcli"), at=YOUNG)
    before = world.left()

    assert world.reasons() == []
    assert world.left() == before


def test_a_version_that_a_zombie_published_after_the_tombstone_is_no_new_life(world: World) -> None:
    world.living()
    world.date("", VERY_OLD)
    stone = deleted(world, at=OLD - 1)
    world.date(keys.versions(ASSET), OLD)

    assert world.reasons() == ["deleted"]
    assert world.left() == [stone]


def test_what_a_zombie_wrote_after_the_tombstone_goes_when_it_is_old(world: World) -> None:
    stone = deleted(world, at=OLD)
    late = world.put(keys.track(ASSET, "video-720p", "0a1b2c") + "0.m4s", at=YOUNG)
    assert world.reasons() == []

    world.date(late, OLD + 1)

    assert world.reasons() == ["deleted"]
    assert world.left() == [stone]


def test_an_asset_that_came_to_life_again_under_its_old_id_stays(world: World) -> None:
    deleted(world, at=VERY_OLD)
    before = world.living()

    assert world.reasons() == []
    assert set(world.left()) == before


# -- inside a living asset --------------------------------------------------------------------------------------------

GARBAGE: dict[str, tuple[str, ...]] = {
    "track": (
        keys.track(ASSET, "video-720p", "ffffff") + "init.mp4",
        keys.track(ASSET, "video-720p", "ffffff") + "0.m4s",
    ),
    "version": (keys.version(ASSET, 2) + "0123456789ab/video-720p.m3u8",),
    "text": (
        f"{keys.PUBLIC}/{ASSET}/subtitles/text-en/ffffff.vtt",
        f"{keys.PUBLIC}/{ASSET}/subtitles/text-en/ffffff.words.json",
    ),
    "receipt": (keys.receipt(ASSET, "job-1", "video-1", "1-abc"), keys.receipt(ASSET, "job-1", "video-1", "2-def")),
    "claim": (keys.claim(ASSET),),
    "preview": (f"{keys.preview(ASSET, '0a1b2c')}video.m3u8", f"{keys.preview(ASSET, '0a1b2c')}1/video-720p.m3u8"),
}
NEVER_PUBLISHED = keys.version(ASSET, 3) + "0123456789ab/video-720p.m3u8"


@pytest.mark.parametrize("reason", GARBAGE)
def test_what_no_version_names_goes_when_it_is_old(world: World, reason: str) -> None:
    before = world.living()
    for key in GARBAGE[reason]:
        world.put(key, at=VERY_OLD)

    (finding,) = world.sweep()

    assert (finding.reason.value, finding.objects) == (reason, len(GARBAGE[reason]))
    assert set(world.left()) == before
    assert world.sweep() == []


def test_playlists_of_a_version_that_never_came_go(world: World) -> None:
    before = world.living()
    world.put(NEVER_PUBLISHED)

    assert world.reasons() == ["version"]
    assert set(world.left()) == before


@pytest.mark.parametrize("reason", GARBAGE)
@pytest.mark.parametrize("owner", ["its youth", "an open job"])
def test_what_no_version_names_yet_stays(world: World, reason: str, owner: str) -> None:
    world.living()
    *rest, last = GARBAGE[reason]
    for key in rest:
        world.put(key, at=VERY_OLD)
    world.put(last, at=YOUNG if owner == "its youth" else VERY_OLD)
    if owner == "an open job":
        world.busy.add(ASSET)
    before = world.left()

    assert world.reasons() == []
    assert world.left() == before


def test_receipts_stay_for_a_week(world: World) -> None:
    """For people: nothing but the job itself reads them."""
    world.living()
    world.put(GARBAGE["receipt"][0], at=OLD)

    assert world.reasons() == []


def test_what_only_an_earlier_version_names_stays(world: World) -> None:
    """Rolling back must find it."""
    world.publish(video_track(recipe="aaaaaa"))
    world.publish(video_track(recipe="bbbbbb"), step="again")
    before = world.left()

    assert world.reasons() == []
    assert world.left() == before


def test_clips_that_are_being_made_keep_every_track_of_what_they_are_cut_from(world: World) -> None:
    world.living()
    world.put(keys.reference(ASSET, "clipclipcli"), at=YOUNG)
    for key in (*GARBAGE["track"], *GARBAGE["text"]):
        world.put(key)

    assert world.reasons() == ["text"]
    assert set(GARBAGE["track"]) <= set(world.left())


def test_what_a_field_of_tomorrow_names_stays(world: World) -> None:
    """A rolling upgrade: a newer worker wrote a version that says more."""
    world.living()
    key = keys.version(ASSET, 2) + "presentation.json"
    sheet = world.put(keys.track(ASSET, "image-160p", "ffffff") + "sheet_1.jpg")
    data = json.loads(world.storage.get(key))
    world.put(key, json.dumps(data | {"pictures": [{"sheets": [sheet]}]}).encode())

    assert world.reasons() == []
    assert sheet in world.left()


@pytest.mark.parametrize("body", [json.dumps({"schema": 99}).encode(), b"{}", b"no JSON", b"[]"])
def test_an_asset_with_a_version_that_cannot_be_read_is_left_alone(world: World, body: bytes) -> None:
    world.living()
    for names in GARBAGE.values():
        for key in names:
            world.put(key, at=VERY_OLD)
    world.put(keys.version(ASSET, 3) + "presentation.json", body)
    before = world.left()

    assert world.reasons() == ["unreadable"]
    assert world.left() == before


def test_a_storage_that_does_not_answer_is_an_error_and_no_reason_to_remove(world: World) -> None:
    world.living()

    def refuse(_: int, operation: str, key: str) -> None:
        if operation == "get" and key.endswith("presentation.json"):
            raise PipelineError("storage_unavailable", reason="test")

    with pytest.raises(PipelineError):
        list(world.janitor(Interrupted(world.storage, refuse)).sweep())


def a_history(document: dict[str, Any] | None = None) -> bytes:
    job = as_data(Job(id="job-1", asset=ASSET, status=JobStatus.SUCCEEDED))
    return json.dumps({"schema": 1, "job": job, "document": document}, default=str).encode()


def document(mp4: str | None, *, at: int = OLD) -> dict[str, Any]:
    """Of an asset whose last export is at this key, and that was last changed then."""
    return {"version": 3, "lastmod": at, "video": {"mp4_url": f"https://media.example/{mp4}" if mp4 else None}}


def exported(world: World, *, known: dict[str, Any] | None, told: dict[str, Any] | None) -> str:
    """A file that was exported; what the record says of it, and what the histories do."""
    world.living()
    world.known.add(ASSET)
    world.document = known or {}
    keep(world.storage, ASSET, "job-1", a_history(told).decode())
    return world.put(keys.mp4(ASSET))


NAMED, NONE = document(keys.mp4(ASSET)), document(None)


@pytest.mark.parametrize(
    ("known", "told"), [(NONE, NONE), (NONE, None), (None, NONE), (document("transcoded/other/video.mp4"), None)]
)
def test_a_file_of_an_export_that_is_no_longer_played_goes(
    known: dict[str, Any] | None, told: dict[str, Any] | None, world: World
) -> None:
    file = exported(world, known=known, told=told)
    before = world.left()

    (finding,) = world.sweep()

    assert (finding.reason, finding.prefixes) == (Reason.EXPORT, (file,))
    assert set(before) - set(world.left()) == {file}


@pytest.mark.parametrize(
    ("known", "told"),
    [(NAMED, None), (None, NAMED), (NAMED, NONE), (NONE, NAMED), (None, None), (document(None, at=YOUNG), None)],
    ids=[
        "named",
        "named by a history",
        "named of late",
        "by what an older store forgot",
        "nobody says",
        "left of late",
    ],
)
def test_a_file_of_an_export_stays_that_somebody_names_or_named_of_late(
    known: dict[str, Any] | None, told: dict[str, Any] | None, world: World
) -> None:
    exported(world, known=known, told=told)
    before = world.left()

    assert world.reasons() == []
    assert world.left() == before


def test_a_file_of_an_export_whose_end_is_not_told_yet_stays(world: World) -> None:
    file = exported(world, known=NONE, told=None)
    world.date(file, YOUNG)

    assert world.reasons() == []


def test_doors_that_lag_behind_are_mended(world: World) -> None:
    world.living()
    world.put(keys.hls_door(ASSET), b"#EXTM3U\n# reelway presentation 1\n")
    world.storage.delete(keys.dash_door(ASSET))

    (finding,) = world.sweep()

    assert (finding.reason, finding.prefixes) == (Reason.DOOR, (keys.hls_door(ASSET), keys.dash_door(ASSET)))
    assert [marked_version(world.storage.get(door).decode()) for door in finding.prefixes] == [2, 2]


# -- beside others ----------------------------------------------------------------------------------------------------


def test_a_job_that_begins_while_the_janitor_looks_keeps_everything(world: World) -> None:
    """It may have found the old segments there and be about to name them."""
    world.living()
    for key in (*GARBAGE["track"], *GARBAGE["text"]):
        world.put(key)
    before = world.left()

    def begin(_: int, operation: str, key: str) -> None:
        if operation == "get":
            world.busy.add(ASSET)

    assert list(world.janitor(Interrupted(world.storage, begin)).sweep()) == []
    assert world.left() == before


def test_a_version_that_came_after_the_listing_is_heard(world: World) -> None:
    """A job took up old segments and ended between the listing and the look at the versions."""
    world.living()
    track = video_track(recipe="ffffff")
    for key in (track.init, *(segment.key for segment in track.segments)):
        world.put(key)
    (held,) = belongings(world.storage)
    world.publish(track, step="again")

    assert list(world.janitor().look_after(held)) == []
    assert world.storage.stat(track.init)


@pytest.mark.parametrize("moment", ["before the first object", "between two batches"])
def test_a_job_that_begins_and_ends_while_the_janitor_deletes_keeps_what_it_took_up(
    moment: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It published old segments that nothing named when the janitor looked; nobody is at work any more."""
    monkeypatch.setattr("pipeline.storage.folder._BATCH", 1)
    world.living()
    track = video_track(recipe="ffffff")
    for key in (track.init, *(segment.key for segment in track.segments)):
        world.put(key)
    world.storage.put(f"{keys.track(ASSET, 'video-720p', 'ffffff')}0.first", b"not named")
    world.date("", OLD)

    def come_and_go() -> None:
        world.publish(track, step="again")
        job = Job(id="job-2", asset=ASSET, status=JobStatus.SUCCEEDED)
        accepted = EventDraft(id="job-2.accepted", type="asset.accepted", data={})
        world.store.commit(Commit(job="job-2", asset=ASSET, new=True, header=job, events=(accepted,)))

    class Slow(Interrupted):
        def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
            assert moved is not None
            if moment == "before the first object":
                come_and_go()
                return self.inner.delete(prefix, moved=moved)
            asked = itertools.count()
            return self.inner.delete(prefix, moved=lambda: (moved(), come_and_go() if next(asked) == 0 else None))

    assert list(world.janitor(Slow(world.storage)).sweep()) == []
    named_objects = frozenset().union(*dict(named(world.storage, ASSET)).values())
    assert {track.init, *(segment.key for segment in track.segments)} <= named_objects
    assert all(world.storage.stat(segment.key) for segment in track.segments)


def test_two_janitors_at_once_do_no_harm(world: World) -> None:
    before = world.living()
    for names in GARBAGE.values():
        for key in names:
            world.put(key, at=VERY_OLD)
    one, other = world.janitor().sweep(), world.janitor().sweep()

    for _ in range(3):
        next(one, None)
        next(other, None)
    list(one)
    list(other)

    assert set(world.left()) == before


def test_a_dry_run_says_the_same_and_touches_nothing(world: World) -> None:
    world.living()
    orphan(world, UUID)
    for names in GARBAGE.values():
        for key in names:
            world.put(key, at=VERY_OLD)
    world.storage.delete(keys.dash_door(ASSET))
    (world.root / ".reelway/tmp/dead").write_bytes(b"half of it")
    os.utime(world.root / ".reelway/tmp/dead", (0, 0))
    before = world.left()

    said = world.sweep(dry_run=True)
    assert world.left() == before
    assert (world.root / ".reelway/tmp/dead").exists()

    assert world.sweep() == said
    assert {finding.reason.value for finding in said} == {*GARBAGE, "orphan", "door", "upload"}
    assert world.sweep() == []


UNKNOWN = (
    "private/archive/events/2025/01/02/1735776000000-0000000000.ndjson",
    "private/archive/horizon.json",
    "private/short/media.json",
    "exports/8x7k2m9qpza/a.zip",
    "transcoded/index.html",
    "backups",
)


def test_what_is_of_no_form_that_it_knows_stays(world: World) -> None:
    before = world.living()
    strange = [
        f"{keys.PRIVATE}/{ASSET}/notes.txt",
        f"{keys.PRIVATE}/{ASSET}/claims.json",
        f"{keys.PUBLIC}/{ASSET}/poster.png",
        f"{keys.PUBLIC}/{ASSET}/thumbnails/thumbnail_1.png",
        f"{keys.PUBLIC}/{ASSET}/sprite/sprite.vtt",
        f"{keys.PUBLIC}/{ASSET}/exports/a/b.zip",
        keys.version(ASSET, 1) + "notes.txt",
    ]
    for key in (*UNKNOWN, *strange):
        world.put(key, at=0)

    assert world.reasons() == []
    assert set(world.left()) == {*before, *UNKNOWN, *strange}


def test_assets_are_told_apart_by_their_keys() -> None:
    for asset in (new_asset_id(), "ABCdef01234", UUID):
        for key in (keys.source(asset, "a.mp4"), keys.media(asset), keys.hls_door(asset), keys.tombstone(asset)):
            assert keys.owner(key) == asset
    for key in (*UNKNOWN, f"private/{ASSET}", f"private/{ASSET}x.mp4", f"other/{ASSET}/a"):
        assert keys.owner(key) is None


def test_memory_is_one_assets_listing(world: World) -> None:
    """The listing goes on only when the asset before was dealt with."""
    assets = sorted(new_asset_id() for _ in range(20))
    for asset in assets:
        orphan(world, asset)
    listed: list[str] = []

    class Counting(Interrupted):
        def list(self, prefix: str) -> Iterator[object]:
            for stored in self.inner.list(prefix):
                listed.append(stored.key)
                yield stored

    seen: Iterator[Belongings] = belongings(Counting(world.storage))

    assert next(seen).asset == assets[0]
    assert {keys.owner(key) for key in listed} <= set(assets[:2])


def test_memory_is_one_versions_names_however_many_there_are(world: World) -> None:
    """A video of an hour names thousands of segments, and it may have been trimmed a thousand times."""
    world.living()
    text = world.storage.get(keys.version(ASSET, 2) + "presentation.json").decode()

    def grow(number: int) -> None:
        """A version that names many segments of its own."""
        segments = [f"{keys.track(ASSET, 'video-720p', '0a1b2c')}{number}{tick:06}.m4s" for tick in range(2000)]
        body = json.dumps(json.loads(text) | {"version": number, "more": segments})
        world.put(f"{keys.version(ASSET, number)}presentation.json", body.encode())

    def peak() -> int:
        tracemalloc.start()
        list(world.janitor(dry_run=True).sweep())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    grow(3)
    before = peak()
    for number in range(4, 24):
        grow(number)

    assert peak() < 2 * before


# -- any garbage beside any asset -------------------------------------------------------------------------------------

_hex = st.text("0123456789abcdef", min_size=6, max_size=6)
_age = st.sampled_from([YOUNG, OLD, VERY_OLD])


def _garbage() -> st.SearchStrategy[tuple[str, str]]:
    """(reason, key) of something that may lie around."""
    return st.one_of(
        st.tuples(st.just("track"), _hex.map(lambda recipe: keys.track(ASSET, "video-720p", recipe) + "0.m4s")),
        st.tuples(st.just("track"), _hex.map(lambda recipe: keys.track(ASSET, "audio-1-en", recipe) + "init.mp4")),
        st.tuples(
            st.just("version"),
            st.tuples(st.integers(1, 4), _hex).map(lambda at: keys.version(ASSET, at[0]) + f"{at[1]}/video-720p.m3u8"),
        ),
        st.tuples(st.just("text"), _hex.map(lambda name: keys.subtitle(ASSET, "text-en", name, "vtt"))),
        st.tuples(st.just("text"), _hex.map(lambda name: keys.subtitle(ASSET, "text-de", name, "words.json"))),
        st.tuples(st.just("receipt"), _hex.map(lambda job: keys.receipt(ASSET, job, "video-1", "1-abc"))),
        st.tuples(st.just("claim"), st.just(keys.claim(ASSET))),
    )


@settings(max_examples=60, deadline=None)
@given(
    recipes=st.lists(st.tuples(_hex, _hex), min_size=1, max_size=3, unique=True),
    garbage=st.lists(st.tuples(_garbage(), _age), max_size=8, unique_by=lambda found: found[0][1]),
    source_age=_age,
    busy=st.booleans(),
)
def test_whatever_lies_around_every_named_object_stays_and_nothing_else_does(
    recipes: list[tuple[str, str]], garbage: list[tuple[tuple[str, str], int]], source_age: int, busy: bool
) -> None:
    folder = tempfile.mkdtemp()
    try:
        world = World(Path(folder))
        world.put(keys.source(ASSET, "a.mp4"), at=source_age)
        for number, (video, audio) in enumerate(recipes):
            world.publish(
                _short(video_track(recipe=video)),
                _short(audio_track(recipe=audio)),
                _at(text_track(), keys.subtitle(ASSET, "text-en", audio, "vtt")),
                step=str(number),
                at=VERY_OLD,
            )
        living = set(world.left())
        units: dict[str, list[tuple[str, str, int]]] = {}
        for (reason, key), age in garbage:
            if key not in living:
                world.put(key, at=age)
                units.setdefault(_folder(reason, key), []).append((reason, key, age))
        if busy:
            world.busy.add(ASSET)
        names = frozenset().union(*dict(named(world.storage, ASSET)).values())
        kept = {
            key
            for found in units.values()
            for _, key, _ in found
            if busy or not all(age <= _limit(reason) for reason, _, age in found) or _named_with(key, names)
        }

        world.sweep()

        assert set(world.left()) == living | kept
        assert world.sweep() == []
    finally:
        shutil.rmtree(folder)


def _short(track: Track) -> Track:
    """Its first segment alone: fewer objects, the same rules."""
    return replace(track, segments=track.segments[:1])


def _at(track: Track, key: str) -> Track:
    return replace(track, segments=(replace(track.segments[0], key=key),))


def _limit(reason: str) -> int:
    return VERY_OLD if reason == "receipt" else OLD


def _folder(reason: str, key: str) -> str:
    return key.partition(".")[0] if reason == "text" else key.rpartition("/")[0]


def _named_with(key: str, names: frozenset[str]) -> bool:
    """It lies in the folder, or belongs to the revision, of something that a version names."""
    return not key.startswith(keys.PRIVATE) and _beside(key) in {_beside(name) for name in names}


def _beside(key: str) -> str:
    return _folder("text" if "/subtitles/" in key else "", key)
