"""A look at a file of this machine as ingest looks at it: in the same sandbox, with the same limits, and nothing kept.

`inspect` is what `reelway probe` and `reelway plan` ask. A bomb may end the process that looks, never the shell.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.fetch import readable_size
from pipeline.media.limits import check
from pipeline.plan import INGEST, blueprint
from pipeline.profile import Profile
from pipeline.requests import ProcessRequest
from pipeline.sandbox import Child, ChildKilled, ChildLimits, Nursery
from pipeline.sizes import check_size
from pipeline.stages import STAGES
from pipeline.tasks import Blueprint, IngestFacts, IngestTask, Limits, MediaInfo, from_json, to_json

_FACTS = "media.json"
"""The output of the stage that has the times of the keyframes too."""


def unlimited(limits: Limits) -> Limits:
    """Only what protects whoever looks: a file that would be refused can be looked at all the same."""
    return Limits(max_bytes=None, max_duration_s=None, max_pixels=limits.max_pixels, max_streams=limits.max_streams)


def refused(media: MediaInfo, limits: Limits) -> PipelineError | None:
    """What ingest would refuse it with under these limits, which `unlimited` left out."""
    try:
        check_size(media.size, limits.max_bytes)
        check(media, limits)
    except PipelineError as error:
        return error
    return None


def inspect(file: Path, limits: Limits, child_limits: ChildLimits) -> MediaInfo:
    """What ingest would learn of the file, with the times of its keyframes.

    Raises the error with which it would refuse it, and what the end of the process means: `stalled`, `stage_crashed` ….
    """
    readable_size(file, str(file))
    with _a_child() as (child, out):
        task = to_json(IngestTask(asset="", url="", source="source", limits=limits))
        moved, stall_s = time.monotonic(), STAGES[INGEST].stall_s
        try:
            for message in child.run(INGEST, task, {"source": file.absolute()}, out, child_limits):
                if message:
                    moved = time.monotonic()
                elif time.monotonic() - moved > stall_s:
                    child.kill()
        except ChildKilled:
            raise PipelineError("stalled", stage=INGEST, seconds=round(stall_s)) from None
        return from_json(MediaInfo, (out / _FACTS).read_bytes())


def drawn(media: MediaInfo, profile: Profile) -> Blueprint:
    """What would be made of it with this profile."""
    return blueprint(IngestFacts(media=media, encoder=""), profile, ProcessRequest(url="/file"))


@contextmanager
def _a_child() -> Iterator[tuple[Child, Path]]:
    """A process and the folder of its outputs, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="reelway-inspect-", ignore_cleanup_errors=True) as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        with closing(Nursery(Path(scratch))) as nursery:
            nursery.start()
            with closing(nursery.child()) as child:
                yield child, out
