"""What others began to bring in parts and nobody completed: the same question for every storage."""

from __future__ import annotations

from pipeline.ports import Abandoned, Multipart


def sweep(multipart: Multipart, older_than_s: float, abandoned: Abandoned, *, dry_run: bool) -> int:
    """Throw away what was given up, and what nobody knows of and is too old. Returns how many."""
    count = 0
    for begun in multipart.begun():
        given_up = abandoned(begun.key, begun.handle)
        if begun.age_s > older_than_s if given_up is None else given_up:
            if not dry_run:
                multipart.abort(begun.key, begun.handle)
            count += 1
    return count
