"""`reelway demo`: from nothing to a playing video, and the next three commands."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.requests import ProcessRequest
from workers.console import command, run_local, serve_until_interrupted, summarize

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame

SECONDS = 12
RATE = Fraction(30)
SAMPLE_RATE = 48000


def run(source: Path | None, out: Path, port: int) -> None:
    """Process a clip with the fast profile and serve it. Where nobody watches, say how to play it instead."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="reelway-demo-") as folder:
        clip = source.absolute() if source else Path(folder) / "demo.mp4"
        if source is None:
            console.print(f"making a clip of {SECONDS} s with picture and sound …")
            make_clip(clip)
        request = ProcessRequest(url=str(clip), orig_filename=clip.name, title=clip.stem, profile="fast")
        result = run_local(request, out, None)
    if result.interrupted and result.job.error is not None:
        sys.exit(130)
    if result.job.error is not None:
        raise PipelineError.from_document(result.job.error)
    summarize(result.document, out, result.seconds)
    asset_id = result.document["id"]
    console.print()
    for word, next_command in (
        ("next", f"process YOUR.mp4 --out {out}"),
        ("", f"ls --out {out}"),
        ("", "doctor"),
    ):
        console.print(f"{word:7} {command()} {next_command}", highlight=False, soft_wrap=True)
    console.print()
    if sys.stdout.isatty():
        serve_until_interrupted(out, asset_id, clip.stem, port)
    else:
        console.print("no terminal, so nothing is played; the line that begins with play does it")


def make_clip(path: Path) -> None:
    """A test picture with a running clock and a tone that comes and goes: 720p30, H.264 and AAC."""
    import av

    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "18"})
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        audio = file.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        tone = "0.2*sin(2*PI*(220+20*floor(t))*t)*lt(mod(t\\,1)\\,0.5)"
        for picture in _frames(("testsrc2", f"size=1280x720:rate={RATE}:duration={SECONDS}"), ("format", "yuv420p")):
            file.mux(video.encode(cast("VideoFrame", picture)))
        for sound in _frames(
            ("aevalsrc", f"{tone}:s={SAMPLE_RATE}:d={SECONDS}"),
            ("aformat", f"sample_fmts=fltp:channel_layouts=stereo:sample_rates={SAMPLE_RATE}"),
            ("asetnsamples", "n=1024"),
        ):
            file.mux(audio.encode(cast("AudioFrame", sound)))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))


def _frames(*filters: tuple[str, str]) -> Iterator[VideoFrame | AudioFrame]:
    """What a chain of filters without an input makes."""
    import av
    from av.filter import Graph

    graph = Graph()
    nodes = [graph.add(name, arguments) for name, arguments in filters]
    nodes.append(graph.add("abuffersink" if filters[0][0].startswith("a") else "buffersink"))
    for left, right in pairwise(nodes):
        left.link_to(right)
    graph.configure()
    with suppress(av.EOFError):
        while True:
            yield graph.pull()
