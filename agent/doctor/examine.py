"""All checks, side by side; one that breaks hides none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import iscoroutine
from typing import Any

from agent.doctor.engine import check_engine, check_own_port, check_setpriv
from agent.doctor.finding import Finding, Level, problem
from agent.doctor.folders import check_folders
from agent.doctor.safety import check_prompts, check_review
from agent.doctor.stores import check_objects, check_store
from agent.doctor.values import (
    check_fetch_guard,
    check_files,
    check_keys,
    check_models,
    check_settings,
    check_traces,
    check_webhooks,
)
from agent.settings import Settings

#: Longer than any check waits by itself.
CHECK_SECONDS = 90

#: Exit codes.
HEALTHY, SICK, WRONG_SETTINGS = 0, 1, 2

Check = Callable[[Settings], list[Finding] | Awaitable[list[Finding]]]


async def examine(settings: Settings, *, write: bool = False) -> list[Finding]:
    """What every check found, in a fixed order. `write`: also try what leaves a trace for a moment."""
    checks: list[Check] = [
        check_settings,
        check_own_port,
        check_store,
        check_engine,
        check_setpriv,
        check_folders,
        check_files,
        check_models,
        check_fetch_guard,
        partial(check_objects, write=write),
        check_prompts,
        check_review,
        check_webhooks,
        check_traces,
        check_keys,
    ]
    found = await asyncio.gather(*(_run(check, settings) for check in checks))
    return [finding for findings in found for finding in findings]


def exit_code(findings: list[Finding]) -> int:
    """0: nothing keeps tasks from running, though there may be advice; 1: something does; 2: a setting is wrong."""
    about = {finding.about for finding in findings if finding.level is Level.PROBLEM}
    return WRONG_SETTINGS if "settings" in about else SICK if about else HEALTHY


async def _run(check: Check, settings: Settings) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            result: Any = check(settings)
            findings: list[Finding] = await result if iscoroutine(result) else result
            return findings
    except Exception as exc:  # noqa: BLE001 - what it says may hold anything, so only its kind is told
        name = getattr(getattr(check, "func", check), "__name__", "check").removeprefix("check_")
        text = f"The check itself failed ({type(exc).__name__})."
        return [problem(name.replace("_", " "), text, "Run the service, and see what its log says.")]
