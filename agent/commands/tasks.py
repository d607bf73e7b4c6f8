"""`comfyui-agent status`, `cancel` and `outputs`: look after tasks of an agent by their ids."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.remote import (
    DEFAULT_URL,
    EXIT_CODES,
    FAILED,
    ApiKey,
    AsJson,
    Stop,
    TaskIds,
    Url,
    client_of,
    complain_all,
    explain,
    printable,
    run_until_stopped,
)

if TYPE_CHECKING:
    from agent.client import AsyncAgentClient

    Ask = Callable[[AsyncAgentClient, str], Awaitable[dict[str, Any]]]

LONGEST_TITLE = 24
COLUMNS = ("task", "state", "progress", "at", "seconds", "workflow", "error")


def status(
    ids: TaskIds,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Wait until all are over; with --json, a line for each change."),
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Say how tasks are getting on. Exit code 1 if one has failed, was cancelled, or is not known."""
    run_until_stopped(_status(ids, url, api_key, follow=follow, as_json=as_json))


def cancel(ids: TaskIds, as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """End tasks, wherever they run. One that is over stays as it is."""
    run_until_stopped(_cancel(ids, url, api_key, as_json=as_json))


def outputs(
    ids: TaskIds,
    out: Annotated[str, typer.Option(help="Folder for the outputs.", metavar="DIR")] = "comfyui-output",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Fetch the outputs of tasks that have succeeded. Prints the paths of the files."""
    run_until_stopped(_outputs(ids, out, url, api_key, as_json=as_json))


for command in (status, cancel, outputs):
    command.__doc__ = f"{command.__doc__}\n\n    {EXIT_CODES}"


async def _status(ids: list[str], url: str, api_key: str | None, *, follow: bool, as_json: bool) -> int:
    from agent.client import AgentUnreachable, TaskFailed  # noqa: PLC0415
    from agent.commands.display import bars, print_table  # noqa: PLC0415

    with bars(wanted=follow and not as_json) as begin:

        async def ask(client: AsyncAgentClient, task_id: str) -> dict[str, Any]:
            if not follow:
                return await client.task(task_id)
            show = _print_json if as_json else begin(_short(task_id))
            is_known = False

            def learn(record: dict[str, Any]) -> None:
                nonlocal is_known
                is_known = True
                show(record)

            try:
                return await client.wait(task_id, learn)
            except TaskFailed as failure:
                return failure.record
            except AgentUnreachable as error:
                raise explain(error, task_id if is_known else None) from None

        records, code = await _ask_all(ids, url, api_key, ask)
    if not as_json and records:
        print_table(COLUMNS, [_row(record) for record in records])
    elif as_json and not follow:
        for record in records:
            _print_json(record)
    is_bad = any(record["state"] in ("failed", "cancelled") for record in records)
    return code or (FAILED if is_bad else 0)


async def _cancel(ids: list[str], url: str, api_key: str | None, *, as_json: bool) -> int:
    async def ask(client: AsyncAgentClient, task_id: str) -> dict[str, Any]:
        return await client.cancel(task_id)

    records, code = await _ask_all(ids, url, api_key, ask)
    for record in records:
        if as_json:
            _print_json(record)
        else:
            typer.echo(f"{printable(record['id'])} {printable(record['state'])}")
    return code


async def _outputs(ids: list[str], out: str, url: str, api_key: str | None, *, as_json: bool) -> int:
    from agent.commands.files import make_folder, write_output  # noqa: PLC0415

    folder = make_folder(out)

    async def ask(client: AsyncAgentClient, task_id: str) -> dict[str, Any]:
        record = await client.task(task_id)
        if record["state"] != "succeeded":
            raise Stop(f"Task {task_id} is {record['state']}: there are no outputs to fetch.", FAILED)
        paths = []
        for output in record["outputs"]:
            data = await client.fetch_output(task_id, output["index"])
            paths.append(str(write_output(folder, task_id, output["index"], output["filename"], data)))
        return {"task_id": task_id, "files": paths}

    found, code = await _ask_all(ids, url, api_key, ask)
    for each in found:
        if as_json:
            _print_json(each)
        else:
            for path in each["files"]:
                typer.echo(path)
    return code


async def _ask_all(
    ids: list[str], url: str, api_key: str | None, ask: Ask
) -> tuple[list[dict[str, Any]], int]:
    """The answers for all tasks that there were any for, in order, and the exit code of the others."""
    import asyncio  # noqa: PLC0415

    from agent.client import AgentClientError  # noqa: PLC0415
    from agent.client.wire import checked_task_id  # noqa: PLC0415

    async def one(client: AsyncAgentClient, task_id: str) -> dict[str, Any] | Stop:
        try:
            return await ask(client, checked_task_id(task_id))
        except AgentClientError as error:
            found = explain(error)
            is_unknown = error.code == "TaskNotFound"
            return Stop(f"Task {task_id}: {found}", FAILED) if is_unknown else found
        except ValueError as exc:
            return Stop(str(exc))
        except Stop as stop:
            return stop

    async with client_of(url, api_key) as client:
        found = await asyncio.gather(*(one(client, task_id) for task_id in dict.fromkeys(ids)))
    code = complain_all(each for each in found if isinstance(each, Stop))
    return [each for each in found if not isinstance(each, Stop)], code


def _short(task_id: str) -> str:
    """An id beside its bar; the table after it has it whole."""
    return task_id if len(task_id) <= LONGEST_TITLE else f"{task_id[: LONGEST_TITLE - 3]}..."


def _row(record: dict[str, Any]) -> list[str]:
    from agent.commands.display import node_of  # noqa: PLC0415

    began, ended = record.get("started_at"), record.get("finished_at")
    error = record.get("error")
    return [
        record["id"],
        record["state"],
        f"{record['progress']:.0%}",
        node_of(record) if record["current_node"] else "",
        f"{ended - began:.1f}" if began and ended else "",
        record.get("workflow_name") or "",
        f"{error['code']}: {error['detail']}" if error else "",
    ]


def _print_json(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record))
