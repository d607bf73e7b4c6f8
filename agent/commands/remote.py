"""What the commands that talk to an agent have in common: its address, exit codes, words for what goes wrong."""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from agent.client import AgentClientError, AsyncAgentClient

#: A task failed, was cancelled or ran out of time, or the agent did not take it.
FAILED = 1
#: The command line makes no sense, or the agent says so: the same call cannot succeed.
WRONG_USE = 2
#: Nobody answers at the address, or not as an agent does.
UNREACHABLE = 3

EXIT_CODES = (
    "Exit code: 0 if all went well, 1 if a task failed or was not taken, 2 if the command line is wrong (also a wrong "
    "key, name or parameter), 3 if the agent cannot be reached, 130 after Ctrl-C."
)

DEFAULT_URL = "http://localhost:9000"
URL_VARIABLE = "COMFYUI_AGENT_URL"
KEY_VARIABLE = "COMFYUI_AGENT_API_KEY"

#: Refusals that blame the command line.
WRONG_CODES = (
    "InvalidParameter",
    "WorkflowNotFound",
    "InvalidTaskId",
    "InvalidOptions",
    "InvalidWorkflow",
    "Unauthorized",
)

Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="Address of the agent.", metavar="URL")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar=KEY_VARIABLE,
        help="Its API key. Other users of this machine can read a command line; the variable is hidden from them.",
        metavar="KEY",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line for each task.")]
TaskIds = Annotated[list[str], typer.Argument(help="Ids of tasks.", metavar="ID")]


class Stop(Exception):
    """The command ends here, with this sentence and this exit code."""

    def __init__(self, sentence: str, code: int = WRONG_USE) -> None:
        self.code = code
        super().__init__(sentence)


class Lost(Stop):
    """The agent had answered for this task, and is not there any more."""

    def __init__(self, task_id: str, detail: str) -> None:
        self.task_id, self.detail = task_id, detail
        super().__init__(_lost([task_id], detail), UNREACHABLE)


def complain_all(stops: Iterable[Stop]) -> int:
    """Say what is wrong, each thing once, and all tasks of an agent that went away together; the exit code."""
    lost: dict[str, list[str]] = {}
    codes: dict[str, int] = {}
    for stop in stops:
        if isinstance(stop, Lost):
            lost.setdefault(stop.detail, []).append(stop.task_id)
        else:
            codes[str(stop)] = stop.code
    codes |= {_lost(ids, detail): UNREACHABLE for detail, ids in lost.items()}
    for sentence in codes:
        complain(sentence)
    return max(codes.values(), default=0)


def _lost(ids: list[str], detail: str) -> str:
    return (
        f"{detail} The agent had answered before, so it went away meanwhile. Once it is back, or at another "
        f"instance that shares its store (--url), `comfyui-agent outputs {' '.join(ids)}` gets the result."
    )


def client_of(url: str, api_key: str | None) -> AsyncAgentClient:
    """Raises Stop for an address or a key that cannot be one."""
    from agent.client import AsyncAgentClient  # noqa: PLC0415

    try:
        return AsyncAgentClient(url, api_key or None)
    except ValueError as exc:
        raise Stop(f"{exc}") from None


def explain(error: AgentClientError, known_task: str | None = None) -> Stop:
    """What went wrong, for who sits before it. `known_task`: one that the agent has answered for already."""
    from agent.client import AgentRequestError, AgentUnreachable  # noqa: PLC0415

    if isinstance(error, AgentUnreachable) and known_task is not None:
        return Lost(known_task, error.detail)
    if isinstance(error, AgentUnreachable):
        return Stop(
            f"{error.detail} Does an agent run there? --url or {URL_VARIABLE} names its address.", UNREACHABLE
        )
    if isinstance(error, AgentRequestError):
        if error.code in ("NotAnAgent", "Redirected"):
            return Stop(f"{error.detail} --url or {URL_VARIABLE} names the agent's address.", UNREACHABLE)
        if error.code == "Unauthorized":
            return Stop(f"The agent wants a valid API key: --api-key or {KEY_VARIABLE}.", WRONG_USE)
    return Stop(f"{error.code}: {error.detail}", WRONG_USE if error.code in WRONG_CODES else FAILED)


def run_until_stopped(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Do the work of a command and leave with its exit code. A signal cancels it; to tidy up then takes it seconds
    at most."""
    import asyncio  # noqa: PLC0415

    from agent.client import AgentClientError  # noqa: PLC0415

    signals: list[int] = []

    async def supervised() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.create_task(work)

        def stop(number: int) -> None:
            signals.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with suppress(NotImplementedError):  # no such handlers on Windows
                loop.add_signal_handler(number, stop, number)
        return await task

    try:
        code = asyncio.run(supervised())
    except (asyncio.CancelledError, KeyboardInterrupt):
        code = 128 + (signals[0] if signals else signal.SIGINT)
    except Stop as stop:
        complain(str(stop))
        code = stop.code
    except AgentClientError as error:
        found = explain(error)
        complain(str(found))
        code = found.code
    sys.stdout.flush()
    raise typer.Exit(code)


def complain(sentence: str) -> None:
    """Say on stderr what is wrong, in a line that no server can make look like something else."""
    typer.echo(f"comfyui-agent: {printable(sentence)}", err=True)


def printable(text: str) -> str:
    """Text from a server without what a terminal would act upon."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
