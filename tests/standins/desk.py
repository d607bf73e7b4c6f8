"""What the stand-ins share: how they are put into a PATH, how they refuse, and what they remember."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]

#: Names the file in which one stand-in tells the others what was built, pushed and so on.
MEMORY = "STANDINS_MEMORY"


def install(folder: Path, *programs: str) -> dict[str, str]:
    """Make the programs; the variables with which a shell finds them before any others."""
    folder.mkdir()
    for name in programs:
        path = folder / name
        path.write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.standins {name} "$@"\n'
        )
        path.chmod(0o755)
    memory = folder / "memory.json"
    memory.write_text("{}")
    return {"PATH": f"{folder}:{os.environ['PATH']}", MEMORY: str(memory)}


def remembered(path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path or os.environ[MEMORY]).read_text())
    return found


def remember(what: str, name: str, value: Any = True) -> None:
    memory = remembered()
    memory.setdefault(what, {})[name] = value
    Path(os.environ[MEMORY]).write_text(json.dumps(memory))


def refuse(why: str) -> NoReturn:
    sys.exit(f"refused: {why}")


def parser(program: str) -> argparse.ArgumentParser:
    """One that takes no abbreviations and tells on stderr, with exit code 2, what it does not know."""
    return argparse.ArgumentParser(prog=program, allow_abbrev=False, add_help=False)
