"""A real asset, and later wishes for it: what is there is not made again, and what is made fits to it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from builders import a_profile, a_request
from makers import make_clip
from presentations import ASSET
from storages import Interrupted
from texts import Said, TextIn, make_text_clip

from pipeline import keys, plan
from pipeline.conductor import Conductor
from pipeline.doorman import Doorman
from pipeline.held import BenchLimits
from pipeline.job import Job, JobStatus, Ref
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress, SystemClock
from pipeline.organizations import Organization, Organizations
from pipeline.ports import Storage
from pipeline.presentation.model import Presentation
from pipeline.presentation.publish import latest
from pipeline.requests import DeleteRequest, ProcessRequest, RepackageRequest, ReprocessRequest, Request
from pipeline.sandbox import Nursery
from pipeline.storage.folder import FolderStorage
from pipeline.tidy import tidy_after
from pipeline.workbench import Workbench


class Remote(Interrupted):
    """A storage whose objects have no path on this machine."""

    def local_path(self, key: str) -> Path | None:
        return None


class Shop:
    """One worker with real stages, over a store in memory."""

    def __init__(self, storage: Storage, nursery: Nursery, **organizations: Organization) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)
        self.storage = storage
        profiles = {"default": a_profile()}
        self.conductor = Conductor(self.store, self.clock, plan, profiles)
        self.doorman = Doorman(self.conductor, storage, Organizations(organizations=organizations))
        limits = BenchLimits(local_sources=True)
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), SystemClock(), nursery, limits=limits)
        self.ran: list[str] = []

    def do(self, request: Request, *stages: str) -> Job:
        """Ask, and let workers of these stages alone do what there is to do."""
        (id_,) = self.doorman.handle(request)
        self.ran.clear()
        while refs := self.store.take(dict.fromkeys(stages, 9)):
            for ref in refs:
                attempt = self.conductor.begin(ref, "w1")
                assert attempt is not None
                self.ran.append(f"{attempt.step.stage}: {self.bench.run(attempt)}")
        for ref in self.store.due(9):
            ended = self.conductor.sweep(ref)
            assert ended is not None
            tidy_after(self.store, self.storage, ended)
            self.conductor.tidied(ended)
        job = self.store.job(id_)
        assert job is not None
        return job

    def shown(self) -> Presentation:
        presentation = latest(self.storage, ASSET)
        assert presentation is not None
        return presentation


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(
        tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=Fraction(5), rate=Fraction(25), size=(640, 360)
    )


def processed(root: Path, clip: Path, nursery: Nursery) -> Shop:
    shop = Shop(Remote(FolderStorage(root)), nursery)
    job = shop.do(wish(clip), "ingest", "transcode", "audio", "package")
    assert job.status is JobStatus.SUCCEEDED
    return shop


def wish(clip: Path, **changes: object) -> ProcessRequest:
    return a_request(asset_id=ASSET, url=str(clip), resolutions=("240p",), **changes)


def test_a_later_rung_is_made_from_what_is_stored_and_fits_to_the_others(
    tmp_path: Path, clip: Path, nursery: Nursery
) -> None:
    shop = processed(tmp_path, clip, nursery)
    old = shop.shown()
    gone = clip.with_suffix(".away")
    clip.rename(gone)  # nobody may need it again
    try:
        job = shop.do(ReprocessRequest(asset_id=ASSET, resolutions=("360p",)), "ingest", "transcode", "package")
    finally:
        gone.rename(clip)

    assert job.status is JobStatus.SUCCEEDED
    assert set(shop.ran) == {"ingest: succeeded", "transcode: succeeded", "package: succeeded"}
    new = shop.shown()
    assert [track.id for track in new.video] == ["video-360p", "video-240p"]
    assert new.video[1] == old.video[0]
    assert [piece.start for piece in new.video[0].segments] == [piece.start for piece in old.video[0].segments]


def test_facts_that_were_lost_are_learned_again_and_the_same(tmp_path: Path, clip: Path, nursery: Nursery) -> None:
    shop = processed(tmp_path, clip, nursery)
    facts = shop.storage.get(keys.media(ASSET))
    shop.storage.delete(keys.media(ASSET))

    job = shop.do(ReprocessRequest(asset_id=ASSET, resolutions=("240p",)), "ingest")

    assert (job.status, shop.ran) == (JobStatus.SUCCEEDED, ["ingest: succeeded"])
    assert shop.storage.get(keys.media(ASSET)) == facts
    assert shop.shown().version == 1, "nothing was missing"


@pytest.mark.parametrize("kept", ["older", "damaged"])
def test_what_an_older_release_learned_is_learned_again(
    kept: str, tmp_path: Path, clip: Path, nursery: Nursery
) -> None:
    """It knew no mirrored picture, say: made of what it knew, the same source would be another picture."""
    shop = processed(tmp_path, clip, nursery)
    facts = shop.storage.get(keys.media(ASSET))
    old = {name: value for name, value in json.loads(facts).items() if name != "probe"}
    old["video"]["rotation"] = 90
    shop.storage.put(keys.media(ASSET), json.dumps(old).encode() if kept == "older" else b"{}")

    job = shop.do(ReprocessRequest(asset_id=ASSET, resolutions=("240p",)), "ingest")

    assert job.status is JobStatus.SUCCEEDED
    assert shop.storage.get(keys.media(ASSET)) == facts


def test_manifests_are_rendered_again_by_the_package_stage_alone(tmp_path: Path, clip: Path, nursery: Nursery) -> None:
    shop = processed(tmp_path, clip, nursery)
    before = shop.shown().tracks

    job = shop.do(RepackageRequest(asset_id=ASSET), "package")

    assert (job.status, shop.ran) == (JobStatus.SUCCEEDED, ["package: succeeded"])
    assert (shop.shown().version, shop.shown().tracks) == (2, before)


@pytest.fixture(scope="module")
def film(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip with text in it."""
    said = [Said(start=1, end=2, text="Here it is"), Said(start=3, end=4, text="And here")]
    signs = TextIn(codec="subrip", said=said, language="ger", title="Signs")
    texts = [TextIn(codec="subrip", said=said), signs]
    return make_text_clip(tmp_path_factory.mktemp("film") / "film.mkv", *texts, clip=clip)


def test_text_that_the_source_brought_stays_when_the_asset_is_made_again(
    tmp_path: Path, film: Path, nursery: Nursery
) -> None:
    shop = processed(tmp_path, film, nursery)
    first = shop.shown()
    assert (first.version, [track.id for track in first.text]) == (1, ["text-1-en", "text-2-de"])
    brought = {stored.key for stored in shop.storage.list(keys.text(ASSET, ""))}
    assert brought == {keys.text(ASSET, "text-1.vtt"), keys.text(ASSET, "text-2.vtt")}

    again = ReprocessRequest(asset_id=ASSET, stages=("audio",))
    assert shop.do(again, "ingest", "audio", "package").status is JobStatus.SUCCEEDED
    assert shop.do(RepackageRequest(asset_id=ASSET), "package").status is JobStatus.SUCCEEDED

    assert (shop.shown().version, shop.shown().text) == (3, first.text)
    assert {stored.key for stored in shop.storage.list(keys.text(ASSET, ""))} == brought
    assert shop.do(DeleteRequest(ids=(ASSET,))).status is JobStatus.SUCCEEDED
    left = [stored.key for stored in shop.storage.list("") if keys.owner(stored.key)]
    assert left == [keys.tombstone(ASSET)], "and numbers, which nobody gets again"


def test_an_asset_is_worth_more_than_its_text(tmp_path: Path, film: Path, nursery: Nursery) -> None:
    """One that is gone between ingest and package is left out, and the others keep their names."""
    shop = Shop(Remote(FolderStorage(tmp_path)), nursery)
    (id_,) = shop.doorman.handle(wish(film))
    shop.do(wish(film, id=id_), "ingest", "transcode", "audio")
    shop.storage.delete(keys.text(ASSET, "text-1.vtt"))

    job = shop.do(wish(film, id=id_), "package")

    assert job.status is JobStatus.SUCCEEDED
    assert [track.id for track in shop.shown().text] == ["text-2-de"]


def test_a_worker_that_was_overtaken_leaves_nothing_in_what_was_deleted_since(
    tmp_path: Path, clip: Path, nursery: Nursery
) -> None:
    """Also where the job that it worked for ended well."""
    shop = processed(tmp_path, clip, nursery)
    (id_,) = shop.doorman.handle(RepackageRequest(asset_id=ASSET))
    zombie = shop.conductor.begin(Ref(job=id_, step="package"), "zombie")
    assert zombie is not None
    for _ in range(8):
        shop.clock.advance(4)
        shop.store.due(0)
    for ref in shop.store.due(9):
        shop.conductor.sweep(ref)
    assert shop.do(RepackageRequest(asset_id=ASSET, id=id_), "package").status is JobStatus.SUCCEEDED
    assert shop.do(DeleteRequest(ids=(ASSET,))).status is JobStatus.SUCCEEDED

    shop.storage.put(keys.subtitle(ASSET, "text-en", "ffffff", "vtt"), b"late")
    assert shop.bench.run(zombie) == "lost"

    assert [stored.key for stored in shop.storage.list("")] == [keys.tombstone(ASSET)]


@pytest.mark.parametrize(
    ("organization", "code"),
    [
        (Organization(max_bytes=99), "media_filesize_too_large"),
        (Organization(max_duration_s=3), "video_duration_too_long"),
    ],
)
def test_a_source_beyond_the_limits_of_its_organization_is_refused(
    organization: Organization, code: str, tmp_path: Path, clip: Path, nursery: Nursery
) -> None:
    shop = Shop(FolderStorage(tmp_path), nursery, acme=organization)

    job = shop.do(wish(clip, organization="acme"), "ingest")

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == code
