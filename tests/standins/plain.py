"""Programs of which only the command line is looked at."""

from __future__ import annotations

import re
from pathlib import Path

from tests.standins.desk import parser, refuse


def npm(argv: list[str]) -> None:
    """`npm install -g PACKAGE`. The package's name was looked up in the registry by hand."""
    command = parser("npm")
    command.add_argument("command", choices=["install"])
    command.add_argument("-g", action="store_true", required=True)
    command.add_argument("package", choices=["@serverless-devs/s"])
    command.parse_args(argv)


def mount(argv: list[str]) -> None:
    """`mount -t nfs -o OPTIONS SERVER:PATH FOLDER`: with the options that the NAS's guide names, on a folder."""
    command = parser("mount")
    command.add_argument("-t", choices=["nfs"], required=True)
    command.add_argument("-o", required=True)
    command.add_argument("source")
    command.add_argument("folder", type=Path)
    given = command.parse_args(argv)
    if not set(given.o.split(",")) <= {"vers=3", "nolock", "proto=tcp", "noresvport"}:
        refuse(f"options {given.o}")
    if not re.fullmatch(r"[\w.-]+:/\S*", given.source) or not given.folder.is_dir():
        refuse(f"{given.source} on {given.folder}")
