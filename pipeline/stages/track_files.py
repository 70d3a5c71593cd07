"""The files of one track: init and media segments are handed over as soon as they are complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from av.packet import Packet

from pipeline.errors import PipelineError
from pipeline.media.boxes import codec_string
from pipeline.media.cmaf import SegmentMuxer, digest, segments
from pipeline.stages.contract import Outputs
from pipeline.tasks import Part, Segment

INIT = "init.mp4"


class TrackFiles:
    """Muxes the packets of one encoder into `<track>/init.mp4` and `<track>/<start tick>.m4s`.

    The keys in the answer are relative to the track's folder: the workbench knows where that lies.
    """

    def __init__(
        self,
        out: Outputs,
        *,
        track: str,
        kind: Literal["video", "audio"],
        template: Any,
        timescale: int,
        boundaries: Sequence[int],
    ) -> None:
        self._out = out
        self._track = track
        self._kind: Literal["video", "audio"] = kind
        self._timescale = timescale
        self._muxer = SegmentMuxer(kind=kind, template=template, timescale=timescale, boundaries=boundaries)
        self._init: bytes | None = None
        self._segments: list[Segment] = []

    def write(self, packets: Sequence[Packet[Any]], *, last: bool = False) -> None:
        for made in segments(self._muxer, packets, last=last):
            if self._init is None:
                self._init = made.init
                self._store(INIT, made.init)
            name = f"{made.scan.start}.m4s"
            self._store(name, made.media)
            self._segments.append(
                Segment(
                    start=made.scan.start,
                    duration=made.scan.duration,
                    key=name,
                    size=len(made.media),
                    keyframes=made.scan.keyframes if self._kind == "video" else (),
                )
            )

    def part(self) -> Part:
        """What was made. Call it after the last packet."""
        if self._init is None:
            raise PipelineError("parts_incomplete", track=self._track, detail="nothing was encoded")
        return Part(
            track=self._track,
            kind=self._kind,
            codec=codec_string(self._init),
            timescale=self._timescale,
            init=INIT,
            init_digest=digest(self._init),
            segments=tuple(self._segments),
        )

    def _store(self, name: str, data: bytes) -> None:
        name = f"{self._track}/{name}"
        self._out.path(name).write_bytes(data)
        self._out.done(name)
