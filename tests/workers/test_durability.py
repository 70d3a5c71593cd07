"""`reelway doctor` asks the Redis that the settings name whether it keeps what it is told, and says what to change."""

from __future__ import annotations

import pytest
from redis_server import running_server

from pipeline.errors import PipelineError
from workers import doctor, durability, embedded
from workers.durability import keeps_everything
from workers.redis_client import Client


def test_a_redis_that_keeps_everything_is_fine() -> None:
    with running_server(appendonly=True) as server:
        finding = keeps_everything(server.url())

    assert (finding.name, finding.state, finding.mend) == ("Redis", "ok", "")


@pytest.mark.parametrize(
    ("setting", "value", "mend"),
    [
        ("appendonly", "no", "CONFIG SET appendonly yes"),
        ("appendfsync", "everysec", "CONFIG SET appendfsync always"),
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ],
)
def test_what_could_be_lost_is_told_with_what_mends_it(setting: str, value: str, mend: str) -> None:
    with running_server(appendonly=True) as server, server.client() as client:
        client.config_set(setting, value)
        finding = keeps_everything(server.url())
        client.execute_command(mend)
        mended = keeps_everything(server.url())

    assert (finding.state, finding.mend, mended.state) == ("warning", mend, "ok")


def test_a_service_that_does_not_show_its_settings_is_a_warning() -> None:
    with running_server(appendonly=True) as server, server.client() as client:
        _forbid_config(client)
        finding = keeps_everything(server.url())

    assert (finding.state, "does not say" in finding.detail) == ("warning", True)


def _forbid_config(client: Client) -> None:
    client.execute_command("ACL SETUSER default -config")


@pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:1/0", "redis://:hunter2@host:secret/0", "nonsense"])
def test_one_that_is_not_there_is_missing_and_no_secret_is_shown(url: str) -> None:
    finding = keeps_everything(url)

    assert finding.state == "missing"
    assert "hunter2" not in finding.detail + finding.mend
    assert "secret" not in finding.detail + finding.mend


def test_one_that_is_too_old_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "MINIMUM", (99, 0))
    with running_server() as server:
        finding = keeps_everything(server.url())

    assert (finding.state, "too old" in finding.detail) == ("missing", True)


# -- which of them is looked at ---------------------------------------------------------------------------------------


def test_the_redis_that_is_named_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(appendonly=True) as server:
        monkeypatch.setenv("REELWAY_REDIS_URL", server.url())
        with_it = doctor._redis()
        server.kill()
        without = doctor._redis()

    assert (with_it.state, without.state) == ("ok", "missing")


def test_that_there_is_none_on_this_machine_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise PipelineError("queue_unavailable", reason="there is no redis-server of 6.2 or newer on this machine")

    monkeypatch.delenv("REELWAY_REDIS_URL", raising=False)
    monkeypatch.setattr(embedded, "find_server", none)

    assert doctor._redis().state == "missing"


def test_the_scratch_disk_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWAY_SCRATCH_DIR", "/nowhere/to/be/found")

    finding = doctor._scratch()

    assert (finding.state, "/nowhere/to/be/found" in finding.detail) == ("missing", True)
