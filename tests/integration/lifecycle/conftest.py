"""Agents as processes, as in the tests of reliability: what a platform does to them is done to processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.reliability.conftest import make_agent, pair, shared_pair

__all__ = ["make_agent", "pair", "shared_pair"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for this folder, so that its tests can share agents."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
