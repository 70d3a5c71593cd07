"""The table of legal moves: complete, without dead ends, and the only way for a step to change."""

from __future__ import annotations

import itertools

import pytest

from pipeline import reference
from pipeline.job import ENDED, OPEN, TRANSITIONS, IllegalMove, Job, JobStatus, Move, Ref, Status, Step

EVERY_PAIR = list(itertools.product(Status, Move))


@pytest.mark.parametrize(("status", "move"), EVERY_PAIR)
def test_a_step_moves_by_the_table_or_not_at_all(status: Status, move: Move) -> None:
    step = Step(id="a", stage="work", status=status)
    if (status, move) in TRANSITIONS:
        assert step.after(move).status is TRANSITIONS[status, move]
    else:
        with pytest.raises(IllegalMove, match=f"a: no {move} from {status}"):
            step.after(move)


def test_a_settled_step_never_moves_again() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0].settled]


def test_every_status_can_be_reached_and_leads_to_an_end() -> None:
    assert _reachable(Status.WAITING) == set(Status)
    for status in Status:
        assert any(reached.settled for reached in _reachable(status)), f"{status} is a dead end"


def test_every_move_is_somewhere_in_the_table() -> None:
    assert {move for _, move in TRANSITIONS} == set(Move)


def test_whoever_holds_a_lease_can_lose_it() -> None:
    """Else a dead worker's step would be stuck for ever."""
    assert {status for status, move in TRANSITIONS if move is Move.LOSE} == {s for s in Status if s.leased}


def test_announcing_the_publishing_may_be_repeated() -> None:
    """The reply to the first announcement may be lost."""
    step = Step(id="a", stage="work", status=Status.RUNNING)
    assert step.after(Move.PUBLISH).after(Move.PUBLISH) == step.after(Move.PUBLISH)


def test_the_diagram_has_an_arrow_for_each_row_of_the_table() -> None:
    drawn = {line.strip() for line in reference.states().splitlines() if " --> " in line and "[*]" not in line}
    assert drawn == {f"{before} --> {after}: {move}" for (before, move), after in TRANSITIONS.items()}


def test_a_job_is_open_or_has_ended() -> None:
    assert set(JobStatus) == OPEN | ENDED
    assert not OPEN & ENDED
    assert {status for status in JobStatus if status.ended} == ENDED


def test_the_attempt_is_the_number_in_the_fence() -> None:
    assert Step(id="a", stage="work").attempt == 0
    assert Step(id="a", stage="work", fence="12-9f3a77c0").attempt == 12


def test_a_reference_survives_its_text_form() -> None:
    ref = Ref(job="job-1", step="audio-1-en")
    assert Ref.parse(str(ref)) == ref


def test_progress_counts_steps_by_weight() -> None:
    """Given a light step that is done and a heavy one half way, then the whole is 0.1 + half of 0.9."""
    steps = {
        "light": Step(id="light", stage="work", weight=0.1, status=Status.SUCCEEDED),
        "heavy": Step(id="heavy", stage="work", weight=0.9, status=Status.RUNNING),
    }
    job = Job(id="j", asset="a", steps=steps)
    assert job.progress({"heavy": 0.5}) == pytest.approx(0.55)
    assert job.progress({}) == pytest.approx(0.1)
    assert Job(id="j", asset="a").progress({}) == 0


def test_a_step_waits_for_the_needs_that_are_not_settled() -> None:
    steps = {
        "done": Step(id="done", stage="work", status=Status.FAILED, optional=True),
        "busy": Step(id="busy", stage="work", status=Status.RUNNING),
        "last": Step(id="last", stage="work", needs=("done", "busy")),
    }
    job = Job(id="j", asset="a", steps=steps)
    assert job.unsettled_needs(steps["last"]) == ("busy",)
    assert job.dependants("busy") == (steps["last"],)
    assert not job.settled


@pytest.mark.parametrize(
    ("status", "optional", "exposed", "publishing", "delivered"),
    [
        (Status.WAITING, False, False, False, False),
        (Status.RUNNING, True, False, False, True),
        (Status.PUBLISHING, True, True, True, True),
        (Status.READY, False, True, True, False),  # its worker was lost while it published
        (Status.SUCCEEDED, False, True, False, True),
    ],
)
def test_a_job_knows_whether_it_publishes_and_whether_it_has_delivered(
    status: Status, optional: bool, exposed: bool, publishing: bool, delivered: bool
) -> None:
    step = Step(id="a", stage="work", status=status, optional=optional, exposed=exposed)
    job = Job(id="j", asset="a", steps={"a": step})
    assert (job.publishing, job.delivered) == (publishing, delivered)


def _reachable(start: Status) -> set[Status]:
    reached, fresh = {start}, {start}
    while fresh:
        fresh = {after for (before, _), after in TRANSITIONS.items() if before in fresh} - reached
        reached |= fresh
    return reached
