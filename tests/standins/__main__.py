"""Stands in for programs that are not at hand: `python -m tests.standins PROGRAM ARGUMENTS...`."""

from __future__ import annotations

import importlib
import sys

#: Program -> module and function. Only one of them is imported.
PROGRAMS = {
    "aliyun": ("aliyun", "main"),
    "docker": ("docker", "main"),
    "mount": ("plain", "mount"),
    "npm": ("plain", "npm"),
    "s": ("serverless_devs", "main"),
}


def start(program: str, arguments: list[str]) -> None:
    """Raises SystemExit where the command line is refused."""
    module, function = PROGRAMS[program]
    getattr(importlib.import_module(f"tests.standins.{module}"), function)(arguments)


if __name__ == "__main__":
    start(sys.argv[1], sys.argv[2:])
