"""A few mutants of every seed, always the same ones; `make fuzz` draws thousands of new ones."""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz import fuzz
from mutate import DAMAGES, mutant
from needs import Require
from seeds import SEEDS, make_seeds
from trials import Court


def test_every_mutant_ends_with_an_asset_or_a_code(tmp_path: Path, require: Require) -> None:
    require(sys.platform.startswith("linux"), "the open files of a process are counted as Linux shows them")

    figures = fuzz(range(72), 1, tmp_path)

    assert [(verdict.name, verdict.outcome, verdict.detail) for verdict in figures.findings] == []
    assert (figures.left, figures.descriptors) == ([], 0)
    assert not [verdict.name for verdict in figures.verdicts if verdict.crashed]
    outcomes = {verdict.outcome for verdict in figures.verdicts}
    assert {"ok", "media_url_file_broken"} < outcomes, "else the damage is too small, or too large, to show anything"


def test_the_seeds_are_good(tmp_path: Path) -> None:
    seeds = make_seeds(tmp_path / "seeds")
    with Court(tmp_path / "scratch") as court:
        outcomes = {name: court.try_(tmp_path / "seeds" / name).outcome for name in seeds}

    assert outcomes == dict.fromkeys(SEEDS, "ok")


def test_a_number_makes_the_same_mutant_again_and_most_differ() -> None:
    seeds = {"a.mp4": bytes(range(256)) * 40, "b.mkv": b"ftypmoov" * 1000}

    drawn = [mutant(seeds, 1, number) for number in range(100)]

    assert drawn == [mutant(seeds, 1, number) for number in range(100)]
    assert len({content for _, content in drawn}) > 90
    assert {kind for name, _ in drawn for kind in DAMAGES if f"-{kind}-" in name} == set(DAMAGES)
