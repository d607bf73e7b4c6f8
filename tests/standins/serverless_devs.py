"""`s`, the command of Serverless Devs, with the component fc3, in front of the platform's simulator.

Options are those of fc3's own help texts (src/commands-help in devsapp/fc3), and of `s config add --help` in 3.1.10.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.standins.desk import parser, refuse, remembered

#: Where a test plays the platform's control plane.
CLOUD = "STANDINS_CLOUD"


def main(argv: list[str]) -> None:
    if argv[:1] == ["config"]:
        command = parser("s config")
        command.add_argument("config")
        command.add_argument("add", choices=["add"])
        command.add_argument("-a", "--access", required=True)
        command.parse_args(argv)
        return
    command = parser("s")
    command.add_argument("resource")
    subcommands = command.add_subparsers(dest="subcommand", required=True)
    deploy = subcommands.add_parser("deploy", allow_abbrev=False)
    deploy.add_argument("--skip-push", action="store_true")
    deploy.add_argument("-y", "--assume-yes", action="store_true")
    subcommands.add_parser("info", allow_abbrev=False)
    logs = subcommands.add_parser("logs", allow_abbrev=False)
    logs.add_argument("--tail", action="store_true")
    logs.add_argument("--search")
    remove = subcommands.add_parser("remove", allow_abbrev=False)
    remove.add_argument("-y", "--assume-yes", action="store_true")
    carry_out(command.parse_args(argv))


def carry_out(given: argparse.Namespace) -> None:
    import yaml  # noqa: PLC0415 - `s config` and wrong options need none of it

    from tests.unit.deploy.files import functions, schema  # noqa: PLC0415

    known = functions(yaml.safe_load(Path("s.yaml").read_text()))
    props = known.get(given.resource) or refuse(f"s.yaml has no resource {given.resource}")
    schema("function_schema.yaml").validate(props)
    match given.subcommand:
        case "deploy":
            if not given.skip_push or not given.assume_yes:
                refuse("without -y it asks, and without --skip-push it pushes")
            # The name that the VPC has for the registry, and the one that images are pushed to.
            pushed = props["customContainerConfig"]["image"].replace("registry-vpc.", "registry.", 1)
            if pushed not in remembered().get("pushed", {}):
                refuse(f"{pushed} was not pushed")
            ask("PUT", given.resource, props)
        case "info":
            print(ask("GET", given.resource))
        case "logs":
            lines = ask("GET", f"{given.resource}/log").splitlines()
            print("\n".join(line for line in lines if (given.search or "") in line))
        case "remove":
            ask("DELETE", given.resource)


def ask(method: str, path: str, body: Any = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{os.environ[CLOUD]}/{path}", data, method=method)) as answer:
        text: str = answer.read().decode()
        return text
