"""How many bytes a source may have, wherever it comes from: one rule for every door."""

from __future__ import annotations

from pipeline.errors import PipelineError


def check_size(size: int, most: int | None) -> None:
    """Raises `media_url_file_broken` for a source without a byte, and `media_filesize_too_large` above `most`."""
    if size == 0:
        raise PipelineError("media_url_file_broken", reason="it is empty")
    if most is not None and size > most:
        raise PipelineError("media_filesize_too_large", current_size=size, maximum_size=most)
