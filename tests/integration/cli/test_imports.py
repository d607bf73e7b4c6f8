"""What `comfyui-agent serve` loads before its port is open. Each module costs time at every cold start, and memory for
as long as the instance lives; what only some instances, or only tasks, need must come later."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.ports import free_port

#: Third-party packages that any start may load, and how many modules of each at most. A number that has to grow is a
#: decision: see docs/performance.md.
BUDGET = {
    "aiohttp": 60,
    "pydantic": 50,
    "asyncio": 40,
    "typer": 35,
    "structlog": 25,
    "attr": 20,
    "yarl": 10,
    "idna": 8,
    "aiohappyeyeballs": 8,
    "multidict": 6,
    "propcache": 6,
    "pybase64": 6,
    "pydantic_core": 4,
    "frozenlist": 3,
    "aiosignal": 2,
    "typing_inspection": 4,
    "typing_extensions": 1,
    "annotated_types": 1,
    "ahocorasick": 1,
    "annotated_doc": 2,
    "shellingham": 2,
}
OURS = {"agent": 145, "comfyui": 18}
#: What the libraries of the budget look for, and find or not.
IF_THERE = {
    "backports",
    "brotli",
    "brotlicffi",
    "zstandard",
    "aiodns",
    "pycares",
    "cryptography",
    "cython_runtime",
}
FRONT = {"AGENT_ROLE": "front", "AGENT_ENGINE_URL": "http://127.0.0.1:9"}
BUCKET = {
    "AGENT_OBJECT_STORE": "s3://bucket",
    "AGENT_OBJECT_STORE_REGION": "auto",
    "AGENT_OBJECT_STORE_KEY_ID": "k",
    "AGENT_OBJECT_STORE_KEY_SECRET": "s",
}

#: Ours that are for some instances or for tasks only.
LATER = {
    "agent.client",
    "agent.demo",
    "agent.doctor",
    "agent.exposition",
    "agent.inputs.fetch",
    "agent.inputs.guard",
    "agent.inputs.media",
    "agent.library.library",
    "agent.provision.run",
    "agent.tasks.directory",
    "agent.trace_sdk",
    "comfyui.http",
    "comfyui.simulator",
}


#: The console script, with an ear at what it says.
SERVE = """
import sys

class Ear:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        if "agent.listening" in text:
            names = (name for name, module in sys.modules.items() if module is not None)
            self.stream.write("loaded " + " ".join(names) + "\\n")
            self.stream.flush()
        return len(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stdout = Ear(sys.stdout)
from agent.cli import main
main()
"""


def loaded_by_start(**variables: str) -> set[str]:
    """The modules, by name, that the real command has loaded when it says that it listens."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "REDIS_"))}
    env |= {"AGENT_HOST": "127.0.0.1", "AGENT_PORT": str(free_port()), "COMFYUI_URL": "http://127.0.0.1:9"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve"],
        env=env | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
        finally:
            process.terminate()
            rest = process.stdout.read()
    assert line.startswith("loaded "), line + rest
    return set(line.split()[1:])


def redis_url() -> str:
    """Nobody listens there: the service starts without its Redis."""
    return f"redis://127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("variables", "more"),
    [
        ({}, {}),
        (BUCKET, {}),
        ({"REDIS_URL": "yes"}, {"redis": 75}),
        ({**FRONT, "REDIS_URL": "yes"}, {"redis": 75}),
    ],
    ids=["memory", "bucket", "redis", "front"],
)
def test_a_start_loads_only_what_opens_the_port(variables: dict[str, str], more: dict[str, int]) -> None:
    if "REDIS_URL" in variables:
        variables = {**variables, "REDIS_URL": redis_url()}
    loaded = loaded_by_start(**variables)
    budget = BUDGET | OURS | more
    numbers = Counter(name.partition(".")[0] for name in loaded)
    ignored = sys.stdlib_module_names | IF_THERE
    counted = {name: n for name, n in numbers.items() if name not in ignored and not name.startswith("_")}
    too_many = {name: n for name, n in counted.items() if n > budget.get(name, 0)}
    assert too_many == {}
    assert loaded & LATER == set()
    if "AGENT_ROLE" not in variables:
        assert not any(name.startswith("agent.front.") for name in loaded)
