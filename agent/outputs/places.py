"""Where the outputs of a task lie until they are fetched, and whether there is such a place at all.

inline   in the task store, and as base64 in the answer
url      in the object store, and as signed URLs in the answer; asked for, or because the answer would be too large
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence

import structlog

from agent.admission import RunRequest
from agent.errors import AgentError, AnswerTooLarge, InvalidOptions, ObjectStoreUnavailable, StoreUnavailable
from agent.objects import ObjectStore
from agent.outputs.collect import Collected
from agent.outputs.disposition import content_disposition
from agent.outputs.estimate import estimate
from agent.outputs.size import answer_bytes
from agent.settings import Outputs, Settings
from agent.tasks.live import LiveTask
from agent.tasks.record import Output

log = structlog.get_logger(__name__)

#: Outputs of one task that are uploaded at the same time.
PARALLEL_UPLOADS = 4

#: So much of a file's name is kept in its key.
LONGEST_NAME = 150


class OutputPlaces:
    """Brings the outputs of a finished attempt to their place. `is_shared`: every instance reaches the task store."""

    def __init__(self, settings: Settings, objects: ObjectStore | None, *, is_shared: bool) -> None:
        self._mode, self._limit = settings.outputs, settings.answer_limit
        self._objects, self._is_shared = objects, is_shared

    def check(self, request: RunRequest) -> None:
        """Before anything runs, refuse what could not be delivered. Raises InvalidOptions, AnswerTooLarge."""
        if self._objects is not None:
            return
        if request.outputs is Outputs.URL:
            raise InvalidOptions(
                'Option "outputs": this server has no object store for "url". AGENT_OBJECT_STORE names one.',
                option="outputs",
            )
        if self._limit is None or self._is_shared:
            return
        expected = estimate(request.workflow, request.options.get("partial_execution_targets"))
        if expected is not None and expected.answer_bytes > self._limit:
            raise AnswerTooLarge(
                f'The pictures of node "{expected.node_id}" ({request.workflow.title(expected.node_id)}) and others '
                f"come to {expected.pixels} pixels, about {expected.answer_bytes} bytes of answer, and this server may "
                f"answer with {self._limit}. Ask for a smaller batch, or have the operator set AGENT_OBJECT_STORE "
                "(or REDIS_URL): then a large answer has URLs.",
                node_id=expected.node_id,
                node_title=request.workflow.title(expected.node_id),
                pixels=expected.pixels,
                limit=self._limit,
            )

    async def place(self, live: LiveTask, request: RunRequest, collected: Sequence[Collected]) -> None:
        """Give the task its outputs. Those that are to be fetched by URL are in the object store when this returns;
        where that failed they stay with the task, and the record warns of it.

        Raises ObjectStoreUnavailable, StoreUnavailable or AnswerTooLarge where neither place can take them.
        """
        outputs = [item.output for item in collected]
        data: list[bytes | None] = [item.data for item in collected]
        failures: dict[str, ObjectStoreUnavailable] = {}
        wants_urls = (request.outputs or self._mode) is Outputs.URL
        if self._objects is not None and collected and (wants_urls or self._is_too_large(live, outputs)):
            began = time.monotonic()
            outputs, failures = await self._upload(self._objects, live, collected)
            data = [
                None if output.object_key else item.data
                for output, item in zip(outputs, collected, strict=True)
            ]
            live.add_timing("upload", time.monotonic() - began)
        if self._is_too_large(live, outputs) and not (self._is_shared and live.claim):
            raise self._no_place(failures)
        live.outputs = data
        warnings = [_warning(node_id, error) for node_id, error in failures.items()]
        live.update(outputs=outputs, warnings=[*live.record.warnings, *warnings])

    async def _upload(
        self, objects: ObjectStore, live: LiveTask, collected: Sequence[Collected]
    ) -> tuple[list[Output], dict[str, ObjectStoreUnavailable]]:
        """The outputs with their keys, and why those of some nodes have none: a node's outputs stay together."""
        # Each owner of the task writes under a key of its own: one that was late changes nothing of the new one's.
        owner = str(live.claim.fence) if live.claim else f"x{uuid.uuid4().hex[:12]}"
        gate = asyncio.Semaphore(PARALLEL_UPLOADS)
        failures: dict[str, ObjectStoreUnavailable] = {}

        async def put(item: Collected) -> Output:
            output = item.output
            key = objects.key(live.id, owner, f"{output.index}-{output.filename[-LONGEST_NAME:]}")
            async with gate:
                try:
                    if failures:  # a store that is silent is waited for once, not once for each file
                        raise next(iter(failures.values()))
                    await objects.put(key, item.data, output.media_type, content_disposition(output))
                except ObjectStoreUnavailable as error:
                    failures.setdefault(output.node_id, error)
            return output.model_copy(update={"object_key": key})

        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(put(item)) for item in collected]
        for node_id, error in failures.items():
            log.warning("output.not_uploaded", node_id=node_id, reason=error.detail)
        placed = [
            item.output if item.output.node_id in failures else done.result()
            for item, done in zip(collected, puts, strict=True)
        ]
        return placed, failures

    def _is_too_large(self, live: LiveTask, outputs: Sequence[Output]) -> bool:
        return self._limit is not None and answer_bytes(live.record, outputs) > self._limit

    def _no_place(self, failures: Mapping[str, ObjectStoreUnavailable]) -> AgentError:
        if failures:
            return next(iter(failures.values()))
        if self._is_shared:
            return StoreUnavailable(
                "The answer would be too large, and the task store, from where its parts could be fetched, cannot be "
                "reached. Try again later."
            )
        return AnswerTooLarge(limit=self._limit)


def _warning(node_id: str, error: AgentError) -> dict[str, object]:
    return {
        "code": "OutputNotUploaded",
        "detail": f'The outputs of node "{node_id}" are kept with the task, not in the object store. {error.detail}',
        "node_id": node_id,
    }
