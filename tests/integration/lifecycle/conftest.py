"""Agents as processes, as in the tests of reliability: what a platform does to them is done to processes."""

from __future__ import annotations

from tests.integration.reliability.conftest import make_agent, pair, shared_pair

__all__ = ["make_agent", "pair", "shared_pair"]
