"""The prompts of ComfyUI's own clients: queued as tasks, listed and told of as ComfyUI would."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from agent.admission import RunRequest
from agent.editor import messages
from agent.editor.sockets import Sockets
from agent.errors import AgentError, SocketNeeded, TaskConflict
from agent.service import TaskService
from agent.tasks.board import TaskBoard
from agent.tasks.record import NodeProgress, Output, State, TaskRecord
from comfyui.events import Event, NodeExecuted

log = structlog.get_logger(__name__)

#: Prompts that are remembered after their end, for /history. Each holds its graph, and what was sent beside it.
MAX_ENDED = 200

#: How large their requests may be together; the latest one is remembered in any case.
MAX_ENDED_BYTES = 32 * 1024 * 1024

#: How long the answer to POST /prompt waits for ComfyUI's judgement of the graph. One that waits behind others is
#: judged later, and what is wrong with it is told as the prompt's error.
JUDGED_SECONDS = 2

#: Fields of extra data with which nodes of Comfy.org's partners are paid for.
CREDENTIALS = ("auth_token_comfy_org", "api_key_comfy_org")

#: Where a file of the engine's is: its name, folder and kind of folder.
Place = tuple[str, str, str]


@dataclass(slots=True)
class Prompt:
    """One prompt as its client sent it, in so many bytes. `record` is the task's, as it was last seen; `judged` is set
    as soon as ComfyUI has accepted or refused the graph, or the prompt waits behind others."""

    id: str
    number: float
    client_id: str
    bytes: int
    request: RunRequest = field(repr=False)
    record: TaskRecord = field(repr=False)
    judged: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    created_ms: int = field(default_factory=lambda: int(time.time() * 1000))

    def extra(self) -> dict[str, Any]:
        """What was sent beside the graph, without the sender's credentials: all clients are shown it."""
        kept = {name: value for name, value in self.request.extra_data.items() if name not in CREDENTIALS}
        return {**kept, "client_id": self.client_id, "create_time": self.created_ms}

    def as_item(self) -> list[Any]:
        """Number, id, graph, extra data, output nodes: as /queue and /history show it."""
        targets = self.request.options.get("partial_execution_targets")
        shown = [node for node, seen in self.record.nodes.items() if seen.images or seen.text or seen.ui]
        return [self.number, self.id, self.request.workflow.graph, self.extra(), targets or shown]

    def outputs(self) -> dict[str, dict[str, Any]]:
        """Node id -> what it gave for people."""
        return {node: found for node, seen in self.record.nodes.items() if (found := _outputs_of(seen))}

    def as_history(self) -> dict[str, Any]:
        record = self.record
        succeeded = record.state is State.SUCCEEDED
        began = {"prompt_id": self.id, "timestamp": int((record.started_at or record.created_at) * 1000)}
        told = {"prompt_id": self.id, "timestamp": messages.end_time(record)}
        last: tuple[str, dict[str, Any]] = ("execution_success", told)
        outputs = self.outputs()
        return {
            "prompt": self.as_item(),
            "outputs": outputs if succeeded else {},
            "status": {
                "status_str": "success" if succeeded else "error",
                "completed": succeeded,
                "messages": [("execution_start", began), last if succeeded else messages.end_status(record)],
            },
            "meta": {
                node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}
                for node in outputs
            },
        }


class Desk:
    """Takes prompts in. `close` ends what it follows; the tasks themselves are the runner's."""

    def __init__(self, runner: TaskService, board: TaskBoard, *, concurrency: int) -> None:
        self._runner, self._board, self._concurrency = runner, board, concurrency
        self.sockets = Sockets()
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()
        self._files: dict[Place, tuple[str, int]] = {}
        self._follows: set[asyncio.Task[None]] = set()
        self._next_number = 0
        self._told = 0

    async def close(self) -> None:
        self.sockets.close()
        for follow in tuple(self._follows):
            follow.cancel()
        await asyncio.gather(*self._follows, return_exceptions=True)

    async def queue(self, request: RunRequest, client_id: str, prompt_id: str | None, *, size: int) -> Prompt:
        """Have a prompt of `size` bytes run as a task with its id. Returns as soon as ComfyUI has accepted it, or it
        waits.

        Raises TaskConflict, SocketNeeded, and what admission or ComfyUI finds wrong with it.
        """
        task_id = prompt_id or str(uuid.uuid4())
        prompt = self._prompts.get(task_id)
        if prompt is None:
            prompt = await self._take_in(request, client_id, task_id, size)
        elif prompt.request.digest != request.digest:
            raise TaskConflict(task_id=task_id)
        try:
            async with asyncio.timeout(JUDGED_SECONDS):
                await prompt.judged.wait()
        except TimeoutError:
            return prompt
        if prompt.record.error is not None and prompt.record.prompt_id is None:
            if self._prompts.get(task_id) is prompt:
                self._drop(prompt)  # ComfyUI keeps none that it refuses
            raise AgentError.from_dict(prompt.record.error, task_id)
        return prompt

    async def _take_in(self, request: RunRequest, client_id: str, task_id: str, size: int) -> Prompt:
        if not self._runner.can_submit and client_id not in self.sockets:
            raise SocketNeeded
        shown: set[str] = set()
        watched = replace(request, watch=partial(self._tell, client_id, task_id, shown))
        number = self._take_number(request.options)
        record = await self._runner.submit(watched, task_id)
        if sent_twice := self._prompts.get(task_id):  # the other one was quicker
            return sent_twice
        prompt = self._prompts[task_id] = Prompt(task_id, number, client_id, size, request, record)
        follow = asyncio.create_task(self._follow(prompt, shown), name=f"prompt {task_id}")
        self._follows.add(follow)
        follow.add_done_callback(self._follows.discard)
        self._tell_status()
        return prompt

    @property
    def remaining(self) -> int:
        """How many prompts run or wait."""
        return sum(not prompt.record.state.is_final for prompt in self._prompts.values())

    def prompts(self) -> list[Prompt]:
        """All that are known, in the order in which they came, those that are over in that of their ends."""
        return list(self._prompts.values())

    def listed(self) -> dict[str, list[Any]]:
        """GET /queue."""
        shown: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}
        for prompt in self._prompts.values():
            if not prompt.record.state.is_final:
                is_running = prompt.record.state is State.RUNNING
                shown["queue_running" if is_running else "queue_pending"].append(prompt.as_item())
        return shown

    def history(
        self, prompt_id: str | None = None, *, most: int | None = None, offset: int = -1
    ) -> dict[str, Any]:
        """GET /history: those that are over, oldest first; `offset` -1 counts `most` from the end."""
        ended = [p for p in self._prompts.values() if p.record.state.is_final]
        if prompt_id is not None:
            ended = [p for p in ended if p.id == prompt_id]
        if most is not None:
            begin = len(ended) - most if offset < 0 else offset
            ended = ended[max(begin, 0) :][:most]
        return {prompt.id: prompt.as_history() for prompt in ended}

    def forget(self, prompt_ids: set[str] | None) -> None:
        """Leave these out of /history from now on; None: all that are over. The tasks stay as they are."""
        for prompt in tuple(self._prompts.values()):
            if prompt.record.state.is_final and (prompt_ids is None or prompt.id in prompt_ids):
                self._drop(prompt)

    async def cancel(self, *, running: bool | None, prompt_ids: set[str] | None) -> bool:
        """Cancel prompts of ComfyUI's clients that run, or those that wait; None: both. `prompt_ids` None: all of them.
        Nobody else's tasks. Says whether there were any."""
        chosen = [
            prompt.id
            for prompt in self._prompts.values()
            if not prompt.record.state.is_final
            and (running is None or (prompt.record.state is State.RUNNING) is running)
            and (prompt_ids is None or prompt.id in prompt_ids)
        ]
        await asyncio.gather(*map(self._runner.cancel, chosen))
        return bool(chosen)

    async def file(self, place: Place) -> tuple[Output, bytes | str] | None:
        """A file of a prompt that is over, as it was delivered; None: it is none of theirs."""
        found = self._files.get(place)
        return None if found is None else await self._board.output(*found)

    def _take_number(self, options: dict[str, Any]) -> float:
        """As ComfyUI numbers its queue, where smaller ones run first."""
        if "number" in options:
            return float(options["number"])
        number, self._next_number = self._next_number, self._next_number + 1
        return float(-number if options.get("front") else number)

    def _tell(self, client_id: str, prompt_id: str, shown: set[str], event: Event) -> None:
        if isinstance(event, NodeExecuted):
            shown.add(event.display_node)
        self.sockets.tell_event(client_id, prompt_id, event)

    async def _follow(self, prompt: Prompt, shown: set[str]) -> None:
        """Keep the prompt's record, and tell of its end. `shown` are the nodes whose outputs were told of already."""
        try:
            async with aclosing(self._board.follow(prompt.id)) as records:
                async for record in records:
                    prompt.record = record
                    if record.prompt_id is not None or (record.queue_position or 0) >= self._concurrency:
                        prompt.judged.set()
        except AgentError as error:  # the store is away, or has forgotten the task
            log.warning("prompt.not_followed", task_id=prompt.id, reason=error.detail)
            ended = {"state": State.FAILED, "error": error.to_dict(), "finished_at": time.time()}
            prompt.record = prompt.record.changed(**ended)
        finally:
            prompt.judged.set()
        if self._prompts.get(prompt.id) is prompt:  # else somebody had it forgotten meanwhile
            self._prompts.move_to_end(prompt.id)  # /history goes by the end
            for output in prompt.record.outputs:
                self._files[(output.filename, output.subfolder, output.type)] = (prompt.id, output.index)
        if prompt.record.state is State.SUCCEEDED:
            for node, given in prompt.outputs().items():
                if node not in shown:  # they were to be reviewed first, or a message was lost
                    late = NodeExecuted(prompt.id, node, node, given)
                    self.sockets.tell_event(prompt.client_id, prompt.id, late)
        self.sockets.tell(prompt.client_id, *messages.of_end(prompt.record))
        self._tell_status()
        self._shed()

    def _tell_status(self) -> None:
        if self.remaining != self._told:
            self._told = self.remaining
            self.sockets.tell_all(messages.status(self._told))

    def _shed(self) -> None:
        """Forget the oldest ones that are over, so that memory stays bounded."""
        ended = [prompt for prompt in self._prompts.values() if prompt.record.state.is_final]
        count, size = len(ended), sum(prompt.bytes for prompt in ended)
        for prompt in ended[:-1]:
            if count <= MAX_ENDED and size <= MAX_ENDED_BYTES:
                return
            count, size = count - 1, size - prompt.bytes
            self._drop(prompt)

    def _drop(self, prompt: Prompt) -> None:
        del self._prompts[prompt.id]
        self._files = {place: of for place, of in self._files.items() if of[0] != prompt.id}


def _outputs_of(seen: NodeProgress) -> dict[str, Any]:
    """A node's output as ComfyUI shows it."""
    found: dict[str, Any] = dict(seen.ui or {})
    if seen.images:
        found["images"] = seen.images
    if seen.text:
        found["text"] = seen.text
    return found
