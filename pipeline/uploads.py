"""Resumable uploads: start · parts · confirm · complete · cancel.

Whoever has a file starts an upload, brings its parts to the URLs that it gets, in any order and as often as it takes,
and completes it; that starts the job. The bytes go to the storage and never through us. The state lies in storage
alone: the record says what was started (`pipeline.upload_record`), the storage which parts are there. So every method
may be called by any process at any time, again and at once, and after a crash between any two of its steps:

1. the parts become the object, create-only: it is told from any other by the name of the upload;
2. the record says `completed`: from here on a cancel is refused;
3. the request goes to the doorman, with an id that follows from the upload: the same job, however often.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline import keys, upload_record
from pipeline.attachments import HEAD_BYTES, KINDS
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.job import Job
from pipeline.ports import Clock, Multipart, ObjectNotFound, PreconditionFailed, Storage, StoredPart
from pipeline.requests import ProcessRequest
from pipeline.standing import Past, jobs_of, tombstone
from pipeline.storage.s3_replies import bare
from pipeline.upload_record import State, Upload
from pipeline.upload_start import USUAL, Opening, Terms
from pipeline.upload_wire import CompleteSaid, PartSaid, StartUpload, UploadSaid

_TRIES = 5
_NAMED = 10
"""An error names so many missing parts."""


class Uploads:
    """The uploads of a fleet; `doorman` lets their jobs in. Holds no state."""

    def __init__(self, doorman: Doorman, clock: Clock, terms: Terms = USUAL) -> None:
        self.doorman = doorman
        self.clock = clock
        self.terms = terms
        self._opening = Opening(doorman, clock, terms)
        self.storage: Storage = doorman.storage
        self.multipart: Multipart = doorman.storage.multipart

    # -- the flow -----------------------------------------------------------------------------------------------------

    def start(self, said: StartUpload | Mapping[str, Any]) -> UploadSaid:
        """Begin an upload. Raises what a request for the job would be refused with, as far as it can be foreseen, and
        `media_filesize_too_large`."""
        upload = self._opening.upload(said)
        upload = upload.model_copy(update={"handle": self.multipart.begin(upload.key, upload.id)})
        upload_record.save(self.storage, upload)
        return self._said(upload, {}, urls=True)

    def parts(self, upload_id: str) -> UploadSaid:
        """How it stands: the parts that are there, and fresh URLs of those that are missing."""
        upload, _ = self._find(upload_id)
        return self._said(upload, self._there(upload), urls=True)

    def confirm(self, upload_id: str, number: int, etag: str) -> PartSaid:
        """See that a part is there as it was sent. Any order, any number of times; nothing is written.

        Raises `upload_incomplete` where it is not there, `upload_part_differs`, and `upload_completed` where nobody can
        tell any more: the parts are one object.
        """
        upload, _ = self._find(upload_id)
        _check_numbers(upload, [number])
        if upload.state is State.COMPLETED:
            raise PipelineError("upload_completed", upload=upload.id, asset=upload.asset)
        part = self._chosen(upload, number, self._listed(upload, number), bare(etag))
        return PartSaid(part_number=number, size=part.size, etag=part.etag)

    def complete(self, upload_id: str, etags: Mapping[int, str] | None = None) -> CompleteSaid:
        """Put the parts together and start the job. Again, or by two at once, it answers the same.

        `etags`: of each part, by its number, what the caller means by it; a part without one is taken as it lies there.
        Raises `upload_incomplete`, `upload_part_differs`, `upload_not_found`, and what a request for the job is refused
        with.
        """
        upload, seen = self._find(upload_id)
        meant = {number: bare(etag) for number, etag in (etags or {}).items()}
        _check_numbers(upload, meant)
        if upload.state is State.OPEN:
            upload = self._assembled(upload, seen, meant)
        if upload.relationship is not None:
            return CompleteSaid(id=upload.id, asset_id=upload.asset, key=upload.key, relationship=upload.relationship)
        return CompleteSaid(id=upload.id, asset_id=upload.asset, job=self._started(upload))

    def cancel(self, upload_id: str) -> None:
        """Give an upload up, with all of its parts. Raises `upload_completed` where it is complete."""
        while True:
            upload, seen = self._find(upload_id, cancelled=True)
            if upload.state is State.COMPLETED:
                raise PipelineError("upload_completed", upload=upload.id, asset=upload.asset)
            with suppress(PreconditionFailed):  # somebody completes or cancels it at this moment
                upload_record.save(self.storage, upload.model_copy(update={"state": State.CANCELLED}), match=seen)
                break
        self._clean_up(upload)

    def under_way(self) -> Iterator[UploadSaid]:
        """Every upload that is neither complete nor given up, without its parts."""
        for begun in self.multipart.begun():
            asset = keys.owner(begun.key)
            for upload in upload_record.of_asset(self.storage, asset) if asset else ():
                if upload.handle == begun.handle and upload.state is State.OPEN and upload.alive(self.clock.now_ms()):
                    yield self._said(upload, None, urls=False)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _find(self, upload_id: str, *, cancelled: bool = False) -> tuple[Upload, str]:
        """The upload, if it has not been given up. Raises `upload_not_found`."""
        upload, seen = upload_record.load(self.storage, upload_id)
        if upload.state is State.COMPLETED or upload.alive(self.clock.now_ms()):
            return upload, seen
        if cancelled and upload.state is State.CANCELLED:
            return upload, seen
        raise PipelineError("upload_not_found", upload=upload_id)

    def _listed(self, upload: Upload, number: int | None = None) -> Mapping[int, Sequence[StoredPart]]:
        """What the storage has of each part. Raises `upload_not_found`."""
        listed: dict[int, list[StoredPart]] = {}
        try:
            for part in self.multipart.parts(upload.key, upload.handle, number):
                listed.setdefault(part.number, []).append(part)
        except ObjectNotFound:
            raise PipelineError("upload_not_found", upload=upload.id) from None
        return listed

    def _there(self, upload: Upload) -> Mapping[int, StoredPart]:
        """The parts that have the right size, as they came last."""
        if upload.state is not State.OPEN:
            return {number: StoredPart(number=number, size=size, etag="") for number, size in upload.sizes.items()}
        last = {number: parts[-1] for number, parts in self._listed(upload).items()}
        return {number: part for number, part in last.items() if upload.sizes.get(number) == part.size}

    def _chosen(
        self, upload: Upload, number: int, listed: Mapping[int, Sequence[StoredPart]], etag: str | None
    ) -> StoredPart:
        """The part that is meant, or why it is not to be had."""
        parts = listed.get(number, ())
        if not parts:
            raise _incomplete(upload, [number])
        meant = [part for part in parts if etag in (None, part.etag)]
        if not meant:
            raise _differs(upload, number, "its ETag is another one")
        if len(meant) > 1:
            raise _differs(
                upload, number, "it was sent with different contents; complete with the ETag of the right one"
            )
        if meant[0].size != upload.sizes[number]:
            raise _differs(upload, number, f"it has {meant[0].size} bytes, not {upload.sizes[number]}")
        return meant[0]

    # -- complete -----------------------------------------------------------------------------------------------------

    def _assembled(self, upload: Upload, seen: str, etags: Mapping[int, str]) -> Upload:
        """The upload as one object, and its record that says so."""
        for _ in range(_TRIES):
            made = self._made(upload, etags)
            if made:
                self._check_made(upload)
                completed = upload.model_copy(update={"state": State.COMPLETED})
                with suppress(PreconditionFailed):
                    upload_record.save(self.storage, completed, match=seen)
                    self.multipart.abort(upload.key, upload.handle)  # what is left of the parts in a folder
                    return completed
            # Somebody else completes it or cancels it, or a part is sent again: what is there now is what counts.
            try:
                found, seen = self._find(upload.id)
            except PipelineError:
                self._clean_up(upload, made=made)
                raise
            if found.state is State.COMPLETED:
                return found
        self._listed(upload)  # raises where the parts went and left nothing: somebody else sweeps this storage
        raise PipelineError("storage_unavailable", reason="the upload is changed by too many at once")

    def _made(self, upload: Upload, etags: Mapping[int, str]) -> bool:
        """The object is there, and it is ours. False: the parts went while they were put together."""
        if self.multipart.completed(upload.key, upload.handle, upload.id) is not None:
            return True
        try:
            listed = self._listed(upload)
        except PipelineError as error:
            if error.code != "upload_not_found":
                raise
            return False
        parts = self._all(upload, listed, etags)
        self._check_welcome(upload)
        try:
            self.multipart.complete(upload.key, upload.handle, upload.id, parts)
        except ObjectNotFound:
            return False
        except PreconditionFailed:
            if self._find(upload.id)[0].state is State.COMPLETED:
                return False
            raise PipelineError("asset_exists", asset=upload.asset) from None
        return True

    def _all(
        self, upload: Upload, listed: Mapping[int, Sequence[StoredPart]], etags: Mapping[int, str]
    ) -> Sequence[StoredPart]:
        missing = [number for number in upload.sizes if number not in listed]
        if missing:
            raise _incomplete(upload, missing)
        return [self._chosen(upload, number, listed, etags.get(number)) for number in upload.sizes]

    def _check_welcome(self, upload: Upload) -> None:
        """Raises now what would be refused when the parts are gone."""
        if upload.relationship is None:
            self.doorman.foresee(_restored(upload))
        else:
            self.doorman.check_present(upload.asset)

    def _check_made(self, upload: Upload) -> None:
        """Nothing is stored of a deleted asset, whoever comes first; and a related file is what it says."""
        if tombstone(self.storage, upload.asset) is not None:
            self._clean_up(upload, made=True)
            raise PipelineError("asset_deleted", asset=upload.asset)
        if upload.relationship is not None:
            kind = KINDS[upload.relationship]
            if not kind.looks_right(self.storage.get(upload.key, 0, HEAD_BYTES)):
                self._clean_up(upload, made=True)
                raise PipelineError(
                    "upload_wrong_format", relationship=upload.relationship, supported_formats=kind.formats
                )

    def _started(self, upload: Upload) -> str:
        """The job: the doorman knows it again, also where the store has lost it."""
        request = _restored(upload)
        try:
            return self.doorman.handle(request)[0]
        except PipelineError as error:
            if error.code not in ("asset_exists", "asset_deleted"):
                raise
            jobs = self._jobs(upload)
            ours = [job.id for job in jobs if job.request.get("upload") == upload.id]
            if ours and error.code == "asset_exists":  # somebody made the job of it with another request
                return request.id if request.id in ours else ours[-1]
            sources = {job.source for job in jobs} - {""}
            # Of an asset whose jobs nobody knows any more this may be the source.
            if upload.key not in sources and (sources or error.code == "asset_deleted"):
                self._drop(upload)
                upload_record.remove(self.storage, upload)
            raise

    def _jobs(self, upload: Upload) -> Sequence[Job | Past]:
        """All that is known of its asset's jobs, newest first."""
        return jobs_of(self.doorman.store, self.storage, upload.asset)

    def _clean_up(self, upload: Upload, *, made: bool = False) -> None:
        """Whatever became of it goes, the record last. Twice is fine. `made`: the object is known to be ours."""

        def ours() -> bool:
            return self.multipart.completed(upload.key, upload.handle, upload.id) is not None

        made = made or ours()  # a folder can tell as long as it has the parts, a bucket also afterwards
        self.multipart.abort(upload.key, upload.handle)
        if (made or ours()) and upload.key not in {job.source for job in self._jobs(upload)}:
            self._drop(upload)
        upload_record.remove(self.storage, upload)

    def _drop(self, upload: Upload) -> None:
        """Delete the object and no other: a deletion is of a prefix, and `a.mp` begins `a.mp4`."""
        if all(stored.key == upload.key for stored in self.storage.list(upload.key)):
            self.storage.delete(upload.key)

    # -- what is answered ---------------------------------------------------------------------------------------------

    def _said(self, upload: Upload, there: Mapping[int, StoredPart] | None, *, urls: bool) -> UploadSaid:
        """`there`: the parts that need not be sent again; None: do not speak of parts."""
        parts = () if there is None else tuple(self._part(upload, number, there.get(number)) for number in upload.sizes)
        return UploadSaid(
            id=upload.id,
            asset_id=upload.asset,
            file_name=upload.file_name,
            file_size=upload.file_size,
            content_type=upload.content_type,
            relationship=upload.relationship,
            state=upload.state.value,
            started_at=upload.started_ms,
            expires_at=upload.expires_ms,
            parts=parts,
        )

    def _part(self, upload: Upload, number: int, stored: StoredPart | None) -> PartSaid:
        size = upload.sizes[number]
        if stored is not None:
            return PartSaid(part_number=number, size=size, etag=stored.etag or None)
        url = self.multipart.url(upload.key, upload.handle, number, size, self.terms.url_s)
        return PartSaid(part_number=number, size=size, upload_url=url)


def _restored(upload: Upload) -> ProcessRequest:
    return ProcessRequest.model_validate(upload.request)


def _check_numbers(upload: Upload, numbers: Iterable[int]) -> None:
    for number in numbers:
        if number not in upload.sizes:
            detail = f"the upload has parts 1 to {len(upload.sizes)}, no part {number}"
            raise PipelineError("parameter_invalid", detail=detail)


def _incomplete(upload: Upload, missing: Sequence[int]) -> PipelineError:
    named = ", ".join(map(str, missing[:_NAMED])) + (" …" if len(missing) > _NAMED else "")
    return PipelineError("upload_incomplete", upload=upload.id, missing=len(missing), parts=named)


def _differs(upload: Upload, number: int, detail: str) -> PipelineError:
    return PipelineError("upload_part_differs", upload=upload.id, part=number, detail=detail)
