"""What tests of every kind share. Builders and makers have modules of their own beside this one."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from assets import MadeAsset, make_asset
from catalogue import provoking
from needs import Require
from redis_server import redis_server, shared_server  # noqa: F401
from s3_server import shared_s3  # noqa: F401

# A run in the background ignores interrupts, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def require() -> Require:
    """`require(condition, reason)`: what is missing is skipped at home, with the reason, and fails in CI."""

    def require(condition: object, reason: str) -> None:
        if not condition:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)

    return require


@pytest.fixture(scope="session")
def asset_folder(tmp_path_factory: pytest.TempPathFactory) -> MadeAsset:
    """One processed asset for every test that only looks at it."""
    return make_asset(tmp_path_factory.mktemp("asset"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """`@pytest.mark.raises_code("…")`: the test fails where the product did not raise all of these."""
    codes = [code for mark in pyfuncitem.iter_markers("raises_code") for code in mark.args]
    if not codes:
        return (yield)
    with provoking(*codes):
        return (yield)
