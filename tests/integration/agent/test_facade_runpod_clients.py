"""RunPod's routes, as its own clients for Python and JavaScript use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients import programs
from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of, unb64
from tests.integration.agent.service import Agent, MakeAgent

KEY = "the-agents-key"
FOLDER = Path(programs.__file__).parent


async def told_by(agent: Agent, interpreter: str, program: str, home: Path, jobs: dict[str, Any]) -> Any:
    """What the client gave back to its caller, who has these jobs."""
    inputs = {name: {"workflow": graph} for name, graph in jobs.items()}
    ran = await programs.run(
        interpreter, str(FOLDER / program), f"{agent.url}/v2", KEY, home=home, stdin=json.dumps(inputs)
    )
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.fixture
def jobs() -> dict[str, Any]:
    return {
        "quick": graphs.painted(graphs.fresh_color()),
        "long": graphs.stepping(steps=1000, seconds=0.1),
        "failing": graphs.raising("no such luck"),
    }


def check_output(output: Any, graph: Any) -> None:
    (image,) = output["images"]
    assert image["type"] == "base64"
    assert color_of(unb64(image["data"])) == graphs.rgb(graph["1"]["inputs"]["color"])


async def test_client_for_python(make_agent: MakeAgent, jobs: dict[str, Any], tmp_path: Path) -> None:
    agent = await make_agent(api_keys=[KEY])
    python = programs.python_client("python")
    told = await told_by(agent, python, "use_runpod.py", tmp_path, jobs)
    blocking, asynchronous = told["blocking"], told["asynchronous"]
    for one in (blocking, asynchronous):
        assert one["health"]["workers"]["ready"] == 1
        check_output(one["later"], jobs["quick"])
        assert one["cancelled"][0] in ("IN_QUEUE", "IN_PROGRESS")
        assert one["cancelled"][1:] == ["CANCELLED", "CANCELLED"]
    check_output(blocking["at once"], jobs["quick"])
    assert (blocking["streamed"], blocking["failed"]) == ([], "FAILED")
    assert blocking["refused"] == [422, "InvalidParameter"]
    assert "401" in blocking["unauthorized"]


async def test_client_for_javascript(make_agent: MakeAgent, jobs: dict[str, Any], tmp_path: Path) -> None:
    agent = await make_agent(api_keys=[KEY])
    node = programs.node("runpod-sdk")
    told = await told_by(agent, node, "use_runpod.mjs", tmp_path, jobs)
    assert told["health"]["workers"]["ready"] == 1
    check_output(told["at once"], jobs["quick"])
    assert told["waited"]["succeeded"]
    check_output(told["waited"]["output"], jobs["quick"])
    check_output(told["later"], jobs["quick"])
    assert told["cancelled"][0] in ("IN_QUEUE", "IN_PROGRESS")
    assert told["cancelled"][1:] == ["CANCELLED", "CANCELLED"]
    assert (told["streamed"], told["failed"]) == ([], "FAILED")
    assert told["refused"] == [422, "InvalidParameter"]
    assert told["unauthorized"] == 401
