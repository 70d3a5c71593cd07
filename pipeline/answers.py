"""What a step has to say when it is done, and what of it the world hears: the workbench tells it, the conductor
commits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pipeline.document import Rendition
from pipeline.tasks import IngestFacts


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A text track of a presentation."""

    id: str
    name: str
    language: str
    key: str
    """Storage key of the whole WebVTT file: on the source's timeline, or the version's own where it shows a part."""
    auto_generated: bool = False
    number: int | None = None
    """What the world calls it by; None: it has none."""


@dataclass(frozen=True, kw_only=True)
class Edited:
    """The part of an asset that is played."""

    start: Fraction
    """Seconds on the asset's timeline; of a clip, from where the clip begins."""
    end: Fraction
    trim: int | None = None
    """Number of the trim job that asked for it."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a step made public: the whole presentation."""

    version: int
    """The one that brought what the step made."""
    shown: int = 0
    """The one that is described here, if that is a later one."""
    duration_ms: int
    """Of what is played."""
    segments: int
    edit: Edited | None = None
    """Which part is played; None: all of the asset's timeline."""
    renditions: tuple[Rendition, ...]
    captions: tuple[Caption, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Subtitled:
    """What became of the speech."""

    track: str | None = None
    """Id of the text track; None where nobody speaks."""


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """An edit was made public: of a trim, or the part of which a clip was made."""

    version: int
    start: Fraction
    """Seconds on the asset's timeline, at the first frame that is shown."""
    end: Fraction
    """… and where the first one would be that is not."""


@dataclass(frozen=True, kw_only=True)
class Reverted:
    """A version without the edit was made public, or an earlier one again."""

    version: int


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """A manifest of about what a trim would show; the public doors do not lead to it."""

    hls_key: str
    dash_key: str
    start: Fraction
    """Seconds on the asset's timeline, as it is shown: cut where segments begin."""
    end: Fraction


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One MP4 file of what was played."""

    key: str
    """Storage key."""
    size: int
    """Bytes."""
    duration_ms: int
    version: int
    """The presentation that it was made of."""
    edit: Edited | None = None
    """… and the part that it played: a document that shows another part does not name the file."""
    rung: str | None = None
    """None: the asset has no picture."""
    audio: tuple[str, ...] = ()
    """Ids of the tracks in it."""
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a step has to say when it is done."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the record and the event: a few hundred bytes."""
    ingest: IngestFacts | None = None
    """The plan grows by it."""
    source: str | None = None
    """Storage key of the ingested source."""
    published: Published | None = None
    subtitled: Subtitled | None = None
    """Captions were added (they stand in `published`), or there is nothing to add."""
    trimmed: Trimmed | None = None
    """Of a trim or a clip, beside `published`."""
    reverted: Reverted | None = None
    """Of a revert or a roll back, beside `published`."""
    previewed: Previewed | None = None
    exported: Exported | None = None

    @property
    def edits(self) -> bool:
        """It tells of a trim, a revert, a preview, a clip or an export."""
        return any((self.trimmed, self.reverted, self.previewed, self.exported))
