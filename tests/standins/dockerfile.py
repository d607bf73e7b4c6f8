"""What a `docker build` of our Dockerfile rests on: its stages, arguments and the files that it copies."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    name: str
    text: str

    def command(self, word: str) -> list[str]:
        """ENTRYPOINT or CMD."""
        found: list[str] = json.loads(re.findall(rf"^{word} (\[.*\])$", self.text, re.MULTILINE)[-1])
        return found


class Dockerfile:
    """Raises ValueError, or OSError for a context without one."""

    def __init__(self, context: Path) -> None:
        self._context = context
        text = re.sub(r"\\\n", " ", (context / "Dockerfile").read_text())
        self.arguments = dict(re.findall(r'^ARG (\w+)="?(.*?)"?$', text, re.MULTILINE))
        parts = re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
        self.stages = {name: Stage(name, body) for name, body in parts}

    def build(self, target: str | None, arguments: dict[str, str]) -> Stage:
        """The stage that is built, the last one unless another is named."""
        if unknown := arguments.keys() - self.arguments.keys():
            raise ValueError(f"the Dockerfile has no ARG {sorted(unknown)}")
        for node in arguments.get("CUSTOM_NODES", "").split():
            if not re.fullmatch(r"https://\S+@[\w.-]+", node):
                raise ValueError(f"{node} is not URL@REVISION")
        if target is not None and target not in self.stages:
            raise ValueError(f"the Dockerfile has no stage {target}")
        values = self.arguments | arguments
        ignored = (self._context / ".dockerignore").read_text().splitlines()
        for line in re.findall(
            r"^COPY (?!--from)(.*)$", "\n".join(s.text for s in self.stages.values()), re.MULTILINE
        ):
            for word in line.split()[:-1]:
                source = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], word)
                sent = f"!{source.split('/')[0]}" in ignored
                if not sent or not (self._context / source).exists():
                    raise ValueError(f"COPY {source}: not in the context")
        return self.stages[target or list(self.stages)[-1]]
