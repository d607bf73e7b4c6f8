"""The runs that `comfyui-agent run` was asked for, side by side."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.client import FINAL_STATES, AgentClientError, AsyncAgentClient, TaskFailed, new_task_id
from agent.client.wire import TASK_ID
from agent.commands.display import Show, bars
from agent.commands.files import make_folder, write_output
from agent.commands.plan import Plan, Seeds, is_name, plan_of_file, plan_of_name
from agent.commands.remote import FAILED, Stop, client_of, complain, complain_all, explain

#: How long a cancelled command waits for a submission under way, so that no task is left that it does not know.
SUBMISSION_SECONDS = 3
#: How long it waits for the answers to its cancels.
CANCEL_SECONDS = 5


LONGEST_TITLE = 24


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for. `out`: None where nobody waits for outputs. `timeout`: seconds for all."""

    workflow: str
    settings: Mapping[str, str]
    files: Mapping[str, str]
    count: int
    out: str | None
    task_id: str | None
    timeout: float | None
    as_json: bool
    with_bars: bool

    def title(self, number: int) -> str:
        """What a bar is called. The task's id would leave no room for anything else."""
        name = "workflow" if self.workflow == "-" else Path(self.workflow).stem[:LONGEST_TITLE]
        return name if self.count == 1 else f"{name} {number + 1}"

    def task_ids(self) -> list[str]:
        """Raises Stop for an id that cannot be one."""
        if self.task_id is None:
            return [new_task_id() for _ in range(self.count)]
        ids = [self.task_id] if self.count == 1 else [f"{self.task_id}-{n + 1}" for n in range(self.count)]
        if not all(TASK_ID.fullmatch(each) for each in ids):
            raise Stop(
                f'"{self.task_id}" is no task-id: 1 to 128 of A-Z a-z 0-9 . _ : -, not . : - at the beginning.'
            )
        return ids


@dataclass(slots=True)
class Run:
    """One of the runs, and how it went. `is_started`: the agent may know the task."""

    number: int
    task_id: str
    state: str = "new"
    is_started: bool = False
    files: list[Path] = field(default_factory=list)
    seeds: Seeds = field(default_factory=dict)
    failure: Stop | None = None
    error: dict[str, str] | None = None

    def learn(self, record: Mapping[str, Any]) -> None:
        """What a record tells of it."""
        self.state = record["state"]
        for node, chosen in (record.get("seeds") or {}).items():
            self.seeds.setdefault(node, {}).update(chosen)

    def fail(self, error: AgentClientError) -> None:
        self.failure = explain(error, None if self.state == "new" else self.task_id)
        self.error = {"code": error.code, "detail": error.detail}
        if isinstance(error, TaskFailed):
            self.learn(error.record)

    def as_json(self) -> str:
        return json.dumps(
            {
                "task_id": self.task_id,
                "state": self.state,
                "files": [str(path) for path in self.files],
                "seeds": self.seeds,
                "error": self.error,
            }
        )


async def carry_out(order: Order, url: str, api_key: str | None) -> int:
    """Do all of it; returns the exit code. Cancelled, it cancels the tasks that it has started."""
    for name in order.settings.keys() & order.files.keys():
        raise Stop(f'"{name}" is given by --set and by --image.')
    runs = [Run(number, task_id) for number, task_id in enumerate(order.task_ids())]
    folder = make_folder(order.out) if order.out is not None else None
    async with client_of(url, api_key) as client:
        plan = await _plan(client, order)
        if order.count > 1 and not plan.has_seeds:
            complain(f"nothing in this workflow takes a seed, so all {order.count} runs make the same.")
        try:
            with bars(wanted=order.with_bars) as begin:
                shows = [begin(order.title(run.number)) for run in runs]
                await _run_all(client, plan, list(zip(runs, shows, strict=True)), folder, order.timeout)
        finally:
            _report(runs, order)
    return complain_all(run.failure for run in runs if run.failure is not None)


async def _plan(client: AsyncAgentClient, order: Order) -> Plan:
    if is_name(order.workflow):
        return await plan_of_name(client, order.workflow, order.settings, order.files)
    plan: Plan = await asyncio.to_thread(plan_of_file, order.workflow, order.settings, order.files)
    return plan


async def _run_all(
    client: AsyncAgentClient,
    plan: Plan,
    shown: list[tuple[Run, Show]],
    folder: Path | None,
    timeout: float | None,
) -> None:
    runs = [run for run, _ in shown]
    try:
        async with asyncio.timeout(timeout):
            async with asyncio.TaskGroup() as group:
                for run, show in shown:
                    group.create_task(_run(client, plan, run, folder, show))
    except TimeoutError:
        late = [run for run in runs if run.failure is None and run.state not in FINAL_STATES]
        await _cancel(client, runs)
        for run in late:
            run.failure = Stop(
                f"Task {run.task_id} was not over after {timeout:g} s; it was cancelled.", FAILED
            )
            run.error = {"code": "Timeout", "detail": str(run.failure)}
    except BaseException:
        await _cancel(client, runs)
        if stopped := [run.task_id for run in runs if run.state == "cancelled"]:
            complain(f"stopped; cancelled {', '.join(stopped)}.")
        raise


async def _run(client: AsyncAgentClient, plan: Plan, run: Run, folder: Path | None, show: Show) -> None:
    try:
        await _submit(client, plan, run)
        if folder is None:
            return

        def learn(record: dict[str, Any]) -> None:
            run.learn(record)
            show(record)

        record = await client.wait(run.task_id, learn)
        for output in record["outputs"]:
            data = await client.fetch_output(run.task_id, output["index"])
            path = await asyncio.to_thread(
                write_output, folder, run.task_id, output["index"], output["filename"], data
            )
            run.files.append(path)
    except AgentClientError as error:
        run.fail(error)
    except Stop as stop:
        run.failure = stop


async def _submit(client: AsyncAgentClient, plan: Plan, run: Run) -> None:
    run.is_started = True
    submission = asyncio.create_task(plan.submit(client, run.number, run.task_id))
    try:
        await asyncio.shield(submission)
    except asyncio.CancelledError:
        # Whether the agent has it yet, only the answer tells; a cancel that came before it would be lost.
        await asyncio.wait((submission,), timeout=SUBMISSION_SECONDS)
        submission.cancel()
        await asyncio.gather(submission, return_exceptions=True)
        raise
    run.state, run.seeds = "queued", plan.seeds_of(run.number)


async def _cancel(client: AsyncAgentClient, runs: list[Run]) -> None:
    """Cancel what was started and is not over."""
    open_runs = [
        run for run in runs if run.is_started and run.failure is None and run.state not in FINAL_STATES
    ]

    async def cancel(run: Run) -> None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                run.learn(await client.cancel(run.task_id))
        except TimeoutError:
            complain(f"task {run.task_id} could not be cancelled: the agent does not answer in time.")
        except AgentClientError as error:
            if error.code != "TaskNotFound":
                complain(f"task {run.task_id} could not be cancelled: {error}")

    with suppress(asyncio.CancelledError):
        await asyncio.gather(*(cancel(run) for run in open_runs))


def _report(runs: list[Run], order: Order) -> None:
    """What was made, or begun, on stdout."""
    for run in runs:
        if order.as_json:
            print(run.as_json(), flush=True)  # noqa: T201
        elif order.out is None and run.state != "new":
            print(run.task_id, flush=True)  # noqa: T201
        for path in () if order.as_json else run.files:
            print(path, flush=True)  # noqa: T201
    sys.stdout.flush()
