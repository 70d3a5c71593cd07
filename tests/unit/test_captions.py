"""The text that a source brought, as tracks that a viewer can tell apart."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from pipeline.presentation.captions import source_id, source_names, source_tracks
from pipeline.presentation.model import Track
from pipeline.tasks import TextStream


def text(language: str = "en", **fields: Any) -> TextStream:
    return TextStream(
        **({"index": 2, "codec": "subrip", "language": language, "cues": 9, "file": "text-1.vtt"} | fields)
    )


def tracks(*texts: TextStream) -> tuple[Track, ...]:
    """All of them are stored."""
    stored = {source_id(n, each.language): (f"key-{n}", 100 * n) for n, each in enumerate(texts, start=1)}
    return source_tracks(texts, stored, duration=Fraction(10))


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([text(), text("pt-br")], ["English", "Portuguese (BR)"]),
        ([text(title="Made by X")], ["English"]),
        ([text(title="Full"), text(title="Signs")], ["English – Full", "English – Signs"]),
        ([text(), text(forced=True), text(hearing_impaired=True)], ["English", "English (forced)", "English (CC)"]),
        ([text("und"), text("und", hearing_impaired=True)], ["Subtitles", "Captions"]),
        ([text("und", title=" CC3 \n"), text("und", title="x" * 99)], ["CC3", "x" * 64]),
    ],
)
def test_names(texts: list[TextStream], names: list[str]) -> None:
    assert source_names(texts) == names


def test_a_track_says_all_that_is_known() -> None:
    (only,) = tracks(text(default=True, forced=True))

    assert (only.id, only.language, only.name) == ("text-1-en", "en", "English (forced)")
    assert (only.default, only.forced, only.hearing_impaired, only.auto_generated) == (True, True, False, False)
    assert (only.segments[0].key, only.size, only.duration) == ("key-1", 100, 10)


def test_what_is_not_stored_is_no_track_and_numbers_stay() -> None:
    texts = [text(), text("de", file=None), text("fr")]
    stored = {"text-1-en": ("key-1", 1), "text-3-fr": ("key-3", 3)}

    assert [track.id for track in source_tracks(texts, stored, duration=Fraction(1))] == ["text-1-en", "text-3-fr"]


def test_where_every_track_is_the_default_one_nobody_chose() -> None:
    assert [track.default for track in tracks(text(default=True), text("de", default=True))] == [False, False]
    assert [track.default for track in tracks(text(), text("de", default=True))] == [False, True]
