"""What cannot reach us, because we do not use it: the rows of the table of known failures that have no story.

| what goes wrong in stock dramatiq                                    | why not here                                  |
|----------------------------------------------------------------------|-----------------------------------------------|
| pipelines, callbacks, results, rate limits: lost when Redis is away  | not imported; the broker has no middleware    |
| groups fire early, twice or never                                    | not imported (`sharing.joined_too_early`)     |
| a retry or a delayed message is doubled when its sender dies         | no `Retries`, no delay queue                  |
| one process hoards a thousand delayed messages for each thread       | no delay queue: delays stand in the due index |
| 20 retries in 30 days; a time limit of 10 minutes, as an exception   | no middleware; a child is killed instead      |
| `notify_shutdown` counts a drain as a failure                        | no middleware (`test_drain.py`)               |
| the dead letters' only reader is a maintenance that deletes them     | only what nobody can read goes there; what    |
|                                                                      | failed is in the record                       |
| priorities order what one process has fetched                        | not used: the order lies in the ready index   |
| messages of any size; arguments and tracebacks in logs and Redis     | a ticket is two names                         |
| maintenance runs KEYS over the whole database                        | tickets have a database of their own          |
| metrics on every address, in one folder for all                      | not imported                                  |
| the death of one process of `dramatiq -p N` ends its siblings; the   | the `dramatiq` command is not used            |
| death of its master leaves them alone                                |                                               |
| a native call that keeps the GIL starves the heart                   | stages run in processes of their own          |
|                                                                      | (tests/stages/test_sandbox.py)                |
| `av.open(timeout=…)` waits twice as long                             | stages have no network (the same)             |
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from dramatiq.broker import Broker

from workers import actors
from workers.settings import Settings
from workers.supervisor import WORKER
from workers.tickets import MAINTENANCE_CHANCE, TicketBroker
from workers.wiring import broker_url

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(path for folder in ("pipeline", "workers") for path in (ROOT / folder).rglob("*.py"))
USED = {
    "dramatiq": {"Actor", "Broker", "Message", "Worker", "actor"},
    "dramatiq.broker": {"Consumer", "MessageProxy"},
    "dramatiq.brokers.redis": {"RedisBroker"},
    "dramatiq.errors": {"ConnectionClosed", "DecodeError"},
    "dramatiq.middleware": {"Middleware"},
}
"""All of dramatiq that the product uses. Whoever wants more reads the table of known failures first."""


@pytest.fixture
def broker() -> Broker:
    made = TicketBroker("unix:///nowhere/redis.sock")
    actors.declare(made, lambda *_names: None, Settings().stage_names)
    return made


def test_nothing_else_of_dramatiq_is_used() -> None:
    wrong = [use for path in CODE for use in uses(ast.parse(path.read_text())) if use[1] not in USED.get(use[0], ())]
    assert wrong == []


def uses(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of whatever a module takes from dramatiq."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dramatiq":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "*") for alias in node.names if alias.name.startswith("dramatiq."))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dramatiq":
            yield "dramatiq", node.attr


def test_the_rule_sees_what_it_forbids() -> None:
    text = "import dramatiq\nimport dramatiq.results\nfrom dramatiq import group\ndramatiq.pipeline([])"
    assert set(uses(ast.parse(text))) == {("dramatiq.results", "*"), ("dramatiq", "group"), ("dramatiq", "pipeline")}


def test_the_broker_has_no_middleware_and_no_delay_queue(broker: Broker) -> None:
    assert broker.middleware == []
    assert broker.get_declared_delay_queues() == set()


def test_actors_have_no_options(broker: Broker) -> None:
    """No retries, time or age limits, priorities, results or callbacks."""
    for name in broker.get_declared_actors():
        assert broker.get_actor(name).options == {}
        assert broker.get_actor(name).priority == 0


def test_maintenance_is_rare_and_looks_at_nothing_but_tickets() -> None:
    assert MAINTENANCE_CHANCE <= 50_000
    assert broker_url("redis://example:6379/3") == "redis://example:6379/4"


def test_nobody_starts_the_dramatiq_command() -> None:
    scripts = [ROOT / "Makefile", *(ROOT / "deploy").rglob("*"), *(ROOT / "scripts").rglob("*")]
    texts = [path.read_text(errors="replace") for path in scripts if path.is_file() and path.suffix != ".pyc"]
    assert [line for text in texts for line in text.splitlines() if "dramatiq" in line.partition("#")[0]] == []
    assert not any("dramatiq" in word for word in WORKER)
