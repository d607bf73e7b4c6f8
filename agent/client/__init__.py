"""Clients of the agent's HTTP interface, for scripts and back ends. They need nothing of the service but its address.

    with AgentClient("http://localhost:9000") as agent:
        for picture in agent.run(workflow).images():
            picture.show()

    async with AsyncAgentClient("http://localhost:9000") as agent:
        record = await agent.wait(await agent.submit(workflow), on_progress=print)

Both have the same methods, results and errors. Each brings its HTTP library when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.client.errors import AgentClientError, AgentRequestError, AgentUnreachable, TaskFailed
from agent.client.results import OutputFile, Result
from agent.client.wire import FINAL_STATES, new_task_id

if TYPE_CHECKING:
    from agent.client.asynchronous import AsyncAgentClient
    from agent.client.blocking import AgentClient

__all__ = [
    "FINAL_STATES",
    "AgentClient",
    "AgentClientError",
    "AgentRequestError",
    "AgentUnreachable",
    "AsyncAgentClient",
    "OutputFile",
    "Result",
    "TaskFailed",
    "new_task_id",
]


def __getattr__(name: str) -> Any:
    if name == "AgentClient":
        from agent.client.blocking import AgentClient  # noqa: PLC0415

        return AgentClient
    if name == "AsyncAgentClient":
        from agent.client.asynchronous import AsyncAgentClient  # noqa: PLC0415

        return AsyncAgentClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
