"""`docker login`, `build`, `push` and `run`, with as many options as our pages use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.standins.desk import parser, refuse, remember, remembered
from tests.standins.dockerfile import Dockerfile

IMAGE = re.compile(r"[a-z0-9.-]+(?:/[A-Za-z0-9._-]+)+:[\w.-]+")


def main(argv: list[str]) -> None:
    {"login": login, "build": build, "push": push, "run": run}[argv[0]](argv[1:])


def login(argv: list[str]) -> None:
    command = parser("docker login")
    command.add_argument("server")
    remember("logins", command.parse_args(argv).server)


def build(argv: list[str]) -> None:
    command = parser("docker build")
    command.add_argument("--platform", choices=["linux/amd64"])
    command.add_argument("-t", dest="tag", required=True)
    command.add_argument("--target")
    command.add_argument("--build-arg", action="append", default=[])
    command.add_argument("context", type=Path)
    given = command.parse_args(argv)
    if not IMAGE.fullmatch(given.tag):
        refuse(f"{given.tag!r} is no name with a tag")
    try:
        arguments = dict(argument.split("=", 1) for argument in given.build_arg)
        stage = Dockerfile(given.context).build(given.target, arguments)
    except (ValueError, OSError) as error:
        refuse(str(error))
    remember("images", given.tag, {"context": str(given.context.absolute()), "stage": stage.name})


def push(argv: list[str]) -> None:
    command = parser("docker push")
    command.add_argument("image")
    image = command.parse_args(argv).image
    memory = remembered()
    if image not in memory.get("images", {}) or image.split("/")[0] not in memory.get("logins", {}):
        refuse(f"{image} was not built, or nobody logged in to its registry")
    remember("pushed", image)


def run(argv: list[str]) -> None:
    """Starts what the image would start, on this machine: paths below a volume become those of its source."""
    command = parser("docker run")
    command.add_argument("--rm", action="store_true")
    command.add_argument("-v", dest="volumes", action="append", default=[])
    command.add_argument("image")
    end = next(i for i, word in enumerate(argv) if IMAGE.fullmatch(word)) + 1
    given, words = command.parse_args(argv[:end]), argv[end:]
    built = remembered().get("images", {}).get(given.image) or refuse(f"{given.image} was not built")
    volumes = [volume.split(":") for volume in given.volumes]
    for source, _ in volumes:
        if not Path(source).is_absolute() or not Path(source).exists():
            refuse(f"the volume {source} is not there")
    for source, target in volumes:
        words = [re.sub(rf"^{re.escape(target)}(?=/|$)", source, word) for word in words]
    _, _, program, *rest = (
        Dockerfile(Path(built["context"])).stages[built["stage"]].command("ENTRYPOINT") + words
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which(program, path=path) or refuse(f"the image starts {program}")
    # A container has none of the variables of the shell that starts it.
    sys.exit(subprocess.run([program, *rest], env={"PATH": path}, check=False).returncode)
