"""What tests of every kind share. Builders and makers have modules of their own beside this one."""

from __future__ import annotations

import os

import pytest
from assets import MadeAsset, make_asset
from needs import Require
from redis_server import redis_server, shared_server  # noqa: F401
from s3_server import shared_s3  # noqa: F401


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
