"""Steps that are decoded when somebody looks at them: the same as a mapping of them, without the cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.job import Job, Status, Step, StepTable

STEPS = {
    "b": Step(id="b", stage="transcode", status=Status.SUCCEEDED),
    "a": Step(id="a", stage="audio", status=Status.RUNNING, optional=True),
    "p": Step(id="p", stage="package", needs=("b", "a"), exposed=True),
}


class Watched:
    """A table, and which of its steps were decoded."""

    def __init__(self) -> None:
        self.decoded: list[str] = []
        self.table = StepTable({name: step.status for name, step in STEPS.items()}, self._decode)
        self.job = Job(id="job", asset="asset", steps=self.table)

    def _decode(self, name: str) -> Step:
        self.decoded.append(name)
        return STEPS[name]


def test_it_is_the_mapping_of_its_steps() -> None:
    watched = Watched()
    assert watched.table == STEPS
    assert watched.job == Job(id="job", asset="asset", steps=STEPS)
    assert list(watched.table) == ["b", "a", "p"]
    assert (len(watched.table), "a" in watched.table, "x" in watched.table) == (3, True, False)
    assert watched.table.get("x") is None
    with pytest.raises(KeyError):
        watched.table["x"]


def test_a_step_is_decoded_once_and_only_if_it_is_asked_for() -> None:
    watched = Watched()
    assert watched.table["a"] is watched.table["a"]
    assert watched.decoded == ["a"]


def test_where_steps_stand_is_known_without_decoding() -> None:
    watched = Watched()
    assert not watched.job.settled
    assert watched.job.unsettled_needs(STEPS["p"]) == ("a",)
    assert watched.decoded == []
    assert watched.job.dependants("a") == (STEPS["p"],)
    assert watched.decoded == ["p"], "only who waits"
    assert not watched.job.delivered
    assert watched.job.publishing


def test_a_job_with_changed_steps_decodes_nothing_for_it() -> None:
    watched = Watched()
    done = replace(STEPS["a"], status=Status.SUCCEEDED)
    new = Step(id="n", stage="subtitle")

    changed = watched.job.with_steps(done, new)

    assert watched.decoded == []
    assert changed.unsettled_needs(STEPS["p"]) == ()
    assert list(changed.steps) == ["b", "a", "p", "n"]
    assert (changed.steps["a"], changed.steps["n"]) == (done, new)
    assert watched.job.statuses["a"] is Status.RUNNING, "the old one is as it was"
    assert changed == Job(id="job", asset="asset", steps=STEPS).with_steps(done, new)
