"""Clips and what they were cut from: deleting one never breaks the other, and in the end nothing is left of both."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from presentations import ASSET, NTSC, audio_track, edit, text_track, video_track
from s3_server import S3Server
from storages import Interrupted

from pipeline import keys
from pipeline.clips import clips_of, mark, parents_of
from pipeline.errors import PipelineError
from pipeline.janitor import Janitor, Reason
from pipeline.job import AssetRecord, Job, JobStatus
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.ports import Storage
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Edit, Effect, Presentation, Track
from pipeline.presentation.publish import latest, publish
from pipeline.standing import standing, tombstone
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import from_json, to_json
from pipeline.tidy import erase, history, remove_asset, tidy

CLIP, OTHER = "cl1p0000001", "cl1p0000002"
LATER_MS = 2 * 24 * 3_600_000


@pytest.fixture(scope="module", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Nothing here is about the disk, and hundreds of assets are written to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "root")
    server: S3Server = request.getfixturevalue("shared_s3")
    prefix = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return open_storage(f"s3://reelway/{prefix}?endpoint=http://127.0.0.1:{server.port}&region=us-east-1")


@pytest.fixture
def folder(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "root")


# -- a story's words --------------------------------------------------------------------------------------------------


def film(storage: Storage) -> Presentation:
    """An asset in three versions: an old recipe, that of today, and captions; with everything else it may have."""
    private = (keys.source(ASSET, "a.mp4"), keys.media(ASSET))
    public = (f"{keys.public(ASSET)}video.mp4", f"{keys.preview(ASSET, '0a1b2c')}video.m3u8")
    for key in (*private, *public):
        storage.put(key, b"x")
    job = Job(id="job-1", asset=ASSET, status=JobStatus.SUCCEEDED)
    storage.put(keys.history(ASSET, "job-1"), history(job, {}).encode())
    show(storage, ASSET, "old", video_track(recipe="01d01d"))
    show(storage, ASSET, "package", video_track(), audio_track())
    return show(storage, ASSET, "subtitle", text_track())


def clip(storage: Storage, name: str, of: str = ASSET, first: int = 40, end: int = 200) -> Presentation:
    """What the trim step of a clip does, with its markers. Raises `asset_deleted`."""
    parent = latest(storage, of)
    media = [track for track in parent.tracks if track.kind != "text"] if parent else []
    mark(storage, name, {of, *(keys.owner(track.init) or "" for track in media)})
    if parent is None or tombstone(storage, of) is not None:
        raise PipelineError("asset_deleted", asset=of)
    return show(storage, name, "trim", *media, base=own(edit(parent, first, end), name))


def own(base: Edit, name: str) -> Edit:
    """With its pieces in the clip's own folder."""
    return from_json(Edit, re.sub(rf"/{ASSET}/([^/]+)/9c8b7a/", rf"/{name}/\1/9c8b7a/", to_json(base)))


def show(storage: Storage, asset: str, step: str, *tracks: Track, base: Edit | None = None) -> Presentation:
    """Publish, with every object of the asset's own."""
    effect = Effect(job="job-1", step=step)

    def composed(last: Presentation | None) -> Presentation:
        return compose(last, asset=asset, tracks=tracks, effect=effect, duration=NTSC.duration, base=base)

    for key in named_by(composed(latest(storage, asset))):
        if keys.owner(key) == asset:
            storage.put(key, b"WEBVTT\n" if key.endswith(".vtt") else b"media")
    return publish(storage, asset, effect, composed)


def named_by(shown: Presentation) -> set[str]:
    """Every object that it names, its playlists left out."""
    return set(re.findall(rf'"({keys.PUBLIC}/[^"]+\.(?:mp4|m4s|vtt))"', to_json(shown)))


def delete(storage: Storage, asset: str, *, force: bool = False) -> None:
    erase(storage, Job(id=f"d-{asset}", asset=asset, kind="delete", created_ms=1, request={"force": force}), None)


class Keeper:
    """A janitor, two days later. `known` assets have a record, `busy` ones an open job."""

    def __init__(
        self, storage: Storage, *, known: Iterable[str] = (), busy: Iterable[str] = (), later_ms: int = LATER_MS
    ):
        self.storage = storage
        self.known = frozenset(known)
        self.busy = frozenset(busy)
        self.store = MemoryJobStore(ManualClock())
        self.store.asset = self._asset  # type: ignore[method-assign]
        self.clock = ManualClock(time.time_ns() // 1_000_000 + later_ms)

    def _asset(self, asset: str) -> AssetRecord | None:
        return AssetRecord(id=asset, document={}, version=1, epoch=1, sequence=1) if asset in self.known else None

    def sweep(self) -> list[Reason]:
        janitor = Janitor(self.storage, self.store, self.busy.__contains__, self.clock)
        return [finding.reason for finding in janitor.sweep()]


def left(storage: Storage, asset: str = "") -> set[str]:
    return {stored.key for stored in storage.list("") if asset in stored.key}


def tombs(*assets: str) -> set[str]:
    return {keys.tombstone(asset) for asset in assets}


def plays(storage: Storage, asset: str) -> bool:
    """Everything is there that the latest version names."""
    shown = latest(storage, asset)
    assert shown is not None
    return all(storage.stat(key) for key in named_by(shown))


# -- one of two is deleted --------------------------------------------------------------------------------------------


def test_a_clip_plays_on_when_its_source_is_deleted_and_then_both_are_gone(storage: Storage) -> None:
    film(storage)
    made = clip(storage, CLIP)
    clip(storage, OTHER)
    before = left(storage, CLIP) | left(storage, OTHER)

    delete(storage, ASSET)

    played = {key for key in named_by(made) if keys.owner(key) == ASSET}
    assert left(storage, f"/{ASSET}") == tombs(ASSET) | played | {keys.reference(ASSET, each) for each in (CLIP, OTHER)}
    assert left(storage, CLIP) | left(storage, OTHER) == before
    assert Keeper(storage).sweep() == []
    show(storage, CLIP, "revert")
    assert plays(storage, CLIP)

    delete(storage, CLIP)
    assert Keeper(storage).sweep() == []
    assert plays(storage, OTHER)
    delete(storage, OTHER)
    assert Keeper(storage).sweep() == [Reason.DELETED]
    assert left(storage) == tombs(ASSET, CLIP, OTHER)


def test_a_source_loses_nothing_when_its_clip_is_deleted(storage: Storage) -> None:
    film(storage)
    before = left(storage)
    clip(storage, CLIP)
    assert parents_of(storage, CLIP) == {ASSET}

    delete(storage, CLIP)

    assert left(storage) == before | tombs(CLIP)
    assert plays(storage, ASSET)


def test_a_clip_of_a_clip_plays_on_when_both_before_it_are_deleted(storage: Storage) -> None:
    film(storage)
    clip(storage, CLIP)
    clip(storage, OTHER, of=CLIP, first=60, end=150)
    assert clips_of(storage, ASSET) == (CLIP, OTHER)

    delete(storage, ASSET)
    delete(storage, CLIP)
    Keeper(storage).sweep()
    assert plays(storage, OTHER)

    delete(storage, OTHER)
    Keeper(storage).sweep()
    assert left(storage) == tombs(ASSET, CLIP, OTHER)


def test_a_deletion_by_force_takes_what_clips_play(storage: Storage) -> None:
    film(storage)
    clip(storage, CLIP)

    delete(storage, ASSET, force=True)

    assert left(storage, f"/{ASSET}") == tombs(ASSET)
    assert not plays(storage, CLIP)


def test_a_clip_that_came_to_nothing_takes_its_markers_along(folder: FolderStorage) -> None:
    film(folder)
    before = left(folder)
    clip(folder, CLIP)

    assert remove_asset(folder, CLIP)

    assert left(folder) == before


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_clip_that_was_never_published_leaves_no_marker(status: JobStatus, folder: FolderStorage) -> None:
    """Its step had put them first of all, and then broke off: of a clip of a clip, at both."""
    film(folder)
    clip(folder, CLIP)
    before = left(folder)
    mark(folder, OTHER, [ASSET, CLIP])

    tidy(folder, a_clip_job(OTHER, status, of=CLIP), {})

    assert left(folder) == before


def test_so_it_is_where_what_it_was_cut_from_was_deleted_meanwhile(folder: FolderStorage) -> None:
    film(folder)
    clip(folder, CLIP)
    mark(folder, OTHER, [ASSET, CLIP])
    delete(folder, ASSET)
    delete(folder, CLIP)

    tidy(folder, a_clip_job(OTHER, JobStatus.FAILED, of=CLIP), {})
    Keeper(folder, later_ms=0).sweep()

    assert left(folder) == tombs(ASSET, CLIP)


def test_who_wakes_up_late_leaves_no_marker_of_a_deleted_clip(folder: FolderStorage) -> None:
    film(folder)
    before = left(folder)
    delete(folder, CLIP)
    mark(folder, CLIP, [ASSET])

    tidy(folder, a_clip_job(CLIP, JobStatus.CANCELLED), {})

    assert left(folder) == before | tombs(CLIP)


def test_a_clip_whose_retry_is_open_keeps_its_markers(folder: FolderStorage) -> None:
    film(folder)
    mark(folder, CLIP, [ASSET])

    retry = a_clip_job(CLIP, JobStatus.ACTIVE, id="again")
    tidy(folder, a_clip_job(CLIP, JobStatus.FAILED), {}, others=lambda: [retry])

    assert clips_of(folder, ASSET) == (CLIP,)


def a_clip_job(clip: str, status: JobStatus, *, of: str = ASSET, id: str = "c") -> Job:
    return Job(id=id, asset=clip, kind="clip", status=status, request={"asset_id": of, "new_id": clip})


def test_a_clip_knows_the_source_of_another_asset_as_long_as_that_is_there(folder: FolderStorage) -> None:
    film(folder)
    clip(folder, CLIP)
    tidy(
        folder, Job(id="c", asset=CLIP, kind="clip", status=JobStatus.SUCCEEDED, source=keys.source(ASSET, "a.mp4")), {}
    )

    stands = standing(folder, CLIP)
    assert stands is not None
    assert stands.source == keys.source(ASSET, "a.mp4")

    delete(folder, ASSET)
    stands = standing(folder, CLIP)
    assert stands is not None
    assert stands.source is None


# -- markers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", ["a deleted one", "one that never came", "one that failed", "a claim"])
def test_a_marker_of_nobody_goes(clip: str, folder: FolderStorage) -> None:
    """Of one that failed there is still a record; who asks for it again writes the marker again."""
    film(folder)
    folder.put(keys.reference(ASSET, CLIP), b"")
    if clip == "a deleted one":
        folder.put(keys.tombstone(CLIP), b'{"schema": 1}')
    known = [ASSET, CLIP] if clip == "one that failed" else [ASSET]
    if clip == "a claim":
        folder.put(keys.claim(CLIP), b"")
        known.append(CLIP)
    before = left(folder)

    found = Keeper(folder, known=known).sweep()

    assert set(found) == {Reason.MARKER, Reason.PREVIEW}
    assert before - left(folder) == {keys.reference(ASSET, CLIP), f"{keys.preview(ASSET, '0a1b2c')}video.m3u8"}


@pytest.mark.parametrize("other", ["plays", "is gone as well"])
def test_a_marker_of_nobody_holds_nothing_of_a_deleted_asset(other: str, folder: FolderStorage) -> None:
    film(folder)
    folder.put(keys.reference(ASSET, CLIP), b"")
    played = named_by(clip(folder, OTHER)) if other == "plays" else set()
    delete(folder, ASSET)

    assert Keeper(folder).sweep() == [Reason.DELETED]

    markers = {keys.reference(ASSET, OTHER)} if played else set()
    assert left(folder, f"/{ASSET}") == tombs(ASSET) | markers | {key for key in played if keys.owner(key) == ASSET}


@pytest.mark.parametrize("owner", ["an open job", "its youth"])
def test_a_marker_of_a_clip_that_is_being_made_holds_everything_it_may_play(owner: str, folder: FolderStorage) -> None:
    film(folder)
    folder.put(keys.reference(ASSET, CLIP), b"")
    delete(folder, ASSET)
    before = left(folder)

    keeper = Keeper(
        folder,
        busy=[CLIP] if owner == "an open job" else [],
        later_ms=0 if owner == "its youth" else LATER_MS,
    )
    found = keeper.sweep()

    assert Reason.DELETED not in found
    assert Reason.MARKER not in found
    assert {key for key in before if key.endswith((".m4s", "init.mp4"))} <= left(folder)


@pytest.mark.parametrize("retry", ["was published", "is at work"])
def test_a_marker_that_is_put_again_while_the_janitor_works_stays(retry: str, folder: FolderStorage) -> None:
    """It was old when the janitor looked, and nobody was left who wanted the clip."""
    film(folder)
    mark(folder, CLIP, [ASSET])
    folder.put(keys.reference(ASSET, "an0ther0000"), b"")
    keeper = Keeper(folder, known=[ASSET])
    busy: set[str] = set()
    sweep = Janitor(folder, keeper.store, busy.__contains__, keeper.clock).sweep()

    assert next(sweep).reason is Reason.MARKER
    if retry == "was published":
        clip(folder, CLIP)
    else:
        busy.add(CLIP)
        mark(folder, CLIP, [ASSET])
    list(sweep)

    assert clips_of(folder, ASSET) == (CLIP,)


def test_so_it_does_at_an_asset_that_is_deleted(folder: FolderStorage) -> None:
    """A clip of a clip is tried again: what it plays is the deleted one's, which the clip between holds."""
    film(folder)
    clip(folder, CLIP)
    mark(folder, OTHER, [ASSET, CLIP])
    delete(folder, ASSET)
    folder.put(f"{keys.track(ASSET, 'video-720p', 'ffffff')}0.m4s", b"left behind")

    def again(_: int, operation: str, key: str) -> None:
        if operation == "delete" and "ffffff" in key:
            clip(folder, OTHER, of=CLIP, first=60, end=150)

    keeper = Keeper(folder)
    keeper.storage = Interrupted(folder, again)
    keeper.sweep()

    assert clips_of(folder, ASSET) == (CLIP, OTHER)


def test_what_no_version_of_the_source_and_no_clip_names_goes(folder: FolderStorage) -> None:
    """Pieces of a trim that came to nothing, beside clips that are alive."""
    film(folder)
    clip(folder, CLIP)
    keep = left(folder)
    for tick in (0, 4004):
        folder.put(f"{keys.track(ASSET, 'video-720p', '0123456789ab')}{tick}.m4s", b"a piece")

    assert set(Keeper(folder, known=[ASSET]).sweep()) == {Reason.TRACK, Reason.PREVIEW}
    assert left(folder) == keep - left(folder, "previews") - {f"{keys.preview(ASSET, '0a1b2c')}video.m3u8"}


# -- races and crashes ------------------------------------------------------------------------------------------------


class Died(BaseException):
    """kill -9."""


def moments(act: Callable[[Storage], object], storage: Callable[[], Storage]) -> int:
    counted = Interrupted(storage())
    act(counted)
    return counted.count


def once(moment: int, do: Callable[[], object]) -> Callable[[int, str, str], None]:
    def before(count: int, *_: str) -> None:
        if count == moment:
            do()

    return before


def tried(storage: Storage) -> bool:
    """Whether the clip came to be."""
    try:
        clip(storage, CLIP)
    except PipelineError as error:
        if error.code != "asset_deleted":
            raise
        return False
    return True


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], FolderStorage]:
    """The film, as often as it is asked for."""
    film(FolderStorage(tmp_path / "film"))
    count = itertools.count()

    def make() -> FolderStorage:
        return FolderStorage(shutil.copytree(tmp_path / "film", tmp_path / str(next(count))))

    return make


def test_a_clip_that_is_made_in_the_middle_of_a_deletion_plays_or_is_refused(
    fresh: Callable[[], FolderStorage],
) -> None:
    came = []
    for moment in range(1, moments(lambda storage: delete(storage, ASSET), fresh) + 1):
        storage = fresh()
        made: list[bool] = []
        delete(Interrupted(storage, once(moment, lambda s=storage, m=made: m.append(tried(s)))), ASSET)
        Keeper(storage).sweep()
        came += made
        assert plays(storage, CLIP) if made[0] else latest(storage, CLIP) is None, moment
    assert set(came) == {True, False}


def test_a_source_that_is_deleted_in_the_middle_of_a_clip_stays_as_far_as_the_clip_comes(
    fresh: Callable[[], FolderStorage],
) -> None:
    came = []
    for moment in range(1, moments(tried, fresh) + 1):
        storage = fresh()

        def both(storage: Storage = storage) -> None:
            delete(storage, ASSET)
            Keeper(storage, busy=[CLIP]).sweep()

        came.append(tried(Interrupted(storage, once(moment, both))))
        Keeper(storage, busy=[CLIP]).sweep()
        assert plays(storage, CLIP) if came[-1] else latest(storage, CLIP) is None, moment
    assert set(came) == {True, False}


@pytest.mark.parametrize("gone", [ASSET, CLIP])
def test_a_deletion_that_dies_anywhere_is_finished(gone: str, fresh: Callable[[], FolderStorage]) -> None:
    def house() -> FolderStorage:
        storage = fresh()
        clip(storage, CLIP)
        return storage

    def die() -> None:
        raise Died

    whole = house()
    delete(whole, gone)
    Keeper(whole, known=[ASSET]).sweep()
    for moment in range(1, moments(lambda storage: delete(storage, gone), house) + 1):
        storage = house()
        with pytest.raises(Died):
            delete(Interrupted(storage, once(moment, die)), gone)
        if moment % 2:
            delete(storage, gone)
        Keeper(storage, known=[ASSET]).sweep()
        if tombstone(storage, gone) is not None:
            assert left(storage) == left(whole), moment
        assert gone == CLIP or plays(storage, CLIP)
