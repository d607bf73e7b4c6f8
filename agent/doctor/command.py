"""The command's face: findings as lines or as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import structlog

from agent.doctor.examine import WRONG_SETTINGS, examine, exit_code
from agent.doctor.finding import Finding, Level, problem
from agent.settings import SettingsError, load_settings

#: Width of the widest words before a sentence.
LEVEL_WIDTH, ABOUT_WIDTH = 7, 15


def run_doctor(say: Callable[[str], None], *, write: bool, as_json: bool) -> int:
    """Examine this machine as the environment describes it, `say` what was found, and return the exit code."""
    # What the parts log about the same things would stand between the findings.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        findings = asyncio.run(examine(load_settings(), write=write))
        code = exit_code(findings)
    except SettingsError as exc:
        remedy = "Correct it: nothing else was looked at, and the service will not start."
        findings = [problem("settings", sentence, remedy) for sentence in str(exc).splitlines()]
        code = WRONG_SETTINGS
    if as_json:
        say(
            json.dumps({"exit_code": code, "findings": [finding.to_dict() for finding in findings]}, indent=2)
        )
        return code
    for finding in findings:
        say(_line(finding))
        if finding.remedy:
            say(f"{'':{LEVEL_WIDTH + ABOUT_WIDTH + 2}}-> {finding.remedy}")
    say(_summary(findings))
    return code


def _line(finding: Finding) -> str:
    level = finding.level.upper() if finding.level is Level.PROBLEM else finding.level
    return f"{level:<{LEVEL_WIDTH}} {finding.about:<{ABOUT_WIDTH}} {finding.text}"


def _summary(findings: list[Finding]) -> str:
    count = sum(finding.level is Level.PROBLEM for finding in findings)
    if not count:
        return "\nNothing that was looked at keeps this machine from running tasks."
    return f"\n{count} problem{'s' if count > 1 else ''}: see the arrow below each."
