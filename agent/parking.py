"""Parks input files of a request that is too large for the way to an instance, and brings them back there.

Function Compute takes 128 KB with an asynchronous request, and one base64 picture is more. So the longest strings among
a workflow's inputs are put into the object store, or without one into the task store, and the envelope says under
`parked` where they belong:
`{"prompt": workflow with empty strings, "parked": {node id: {input name: SHA-256}}}`. Whoever takes the request puts
them back before anything else looks at the workflow, which is then exactly the one that the caller sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import structlog
from pydantic_core import to_json

from agent.errors import (
    AsyncBodyTooLarge,
    BodyTooLarge,
    InvalidInput,
    InvalidOptions,
    ObjectStoreUnavailable,
)
from agent.objects import ObjectMissing, ObjectStore, ObjectTooLarge
from agent.tasks.store import TaskStore

log = structlog.get_logger(__name__)

#: Where in the object store they lie. Nothing is removed from there: let a lifecycle rule of the bucket do it.
FOLDER = "parked"

#: Node id -> input name -> SHA-256 of the string's UTF-8 bytes.
Parked = dict[str, dict[str, str]]

#: A shorter string stays where it is: its digest would save little.
LEAST_BYTES = 1024

#: What a parked string costs in the envelope beside the names: digest, quotes and brackets.
REFERENCE_BYTES = 128


class Parking:
    """`max_bytes` bounds what is brought back for one request: references to the same string are cheap to send."""

    def __init__(self, store: TaskStore, objects: ObjectStore | None, *, max_bytes: int) -> None:
        self._store, self._objects, self._max_bytes = store, objects, max_bytes

    async def shrink(self, envelope: dict[str, Any], limit: int) -> bytes:
        """The envelope as JSON of at most `limit` bytes; as many strings as that needs are parked, the longest first.

        Raises AsyncBodyTooLarge where the rest is still too large, and StoreUnavailable.
        """
        body = await asyncio.to_thread(to_json, envelope)
        if len(body) <= limit:
            return body
        graph, parked, texts = await asyncio.to_thread(_select, envelope["prompt"], len(body) - limit)
        body = await asyncio.to_thread(to_json, {**envelope, "prompt": graph, "parked": parked})
        if len(body) > limit:
            raise AsyncBodyTooLarge(
                f"Without its input files the request still has {len(body)} bytes, and {limit} are the limit of an "
                "asynchronous one. Send it synchronously, or make the workflow smaller.",
                limit=limit,
            )
        await asyncio.gather(*(self._put(digest, data) for digest, data in texts.items()))
        return body

    async def restore(self, graph: Any, parked: Parked) -> Any:
        """The graph with its parked strings in place again.

        Raises InvalidOptions where the graph has no such input, InvalidInput where a string is no longer there,
        BodyTooLarge, StoreUnavailable and ObjectStoreUnavailable.
        """
        places = [(node, name, digest) for node, names in parked.items() for name, digest in names.items()]
        for node, name, _ in places:
            if not _has_hole(graph, node, name):
                raise InvalidOptions(
                    f'"parked" names input "{name}" of node "{node}", which has no empty text.'
                )
        texts: dict[str, str] = {}
        total = 0
        for node, name, digest in places:
            if digest not in texts:
                data = await self._get(digest)
                if data is None:
                    raise InvalidInput(
                        f'Input "{name}" of node "{node}" was parked, and is no longer there. Send the task again.',
                        node_id=node,
                        input=name,
                    )
                texts[digest] = data.decode()
            total += len(texts[digest])
            if total > self._max_bytes:
                raise BodyTooLarge(limit=self._max_bytes)
        return _filled(graph, {(node, name): texts[digest] for node, name, digest in places})

    async def _put(self, digest: str, data: bytes) -> None:
        if self._objects is not None:
            try:
                await self._objects.put(self._objects.key(FOLDER, digest), data, "text/plain")
            except ObjectStoreUnavailable as error:
                log.warning("input.parked_elsewhere", reason=error.detail)
            else:
                return
        await self._store.put_parked(digest, data)

    async def _get(self, digest: str) -> bytes | None:
        if (data := await self._store.get_parked(digest)) is not None or self._objects is None:
            return data
        try:
            data, _ = await self._objects.get(self._objects.key(FOLDER, digest), self._max_bytes)
        except ObjectMissing:
            return None
        except ObjectTooLarge:
            raise BodyTooLarge(limit=self._max_bytes) from None
        return data


def _select(graph: dict[str, Any], excess: int) -> tuple[dict[str, Any], Parked, dict[str, bytes]]:
    """Take the longest strings out of the graph until so many bytes are saved, or only short ones are left."""
    inputs = (
        (node_id, name, value) for node_id, node in graph.items() for name, value in node["inputs"].items()
    )
    long = [found for found in inputs if isinstance(found[2], str) and len(found[2]) >= LEAST_BYTES]
    parked: Parked = {}
    texts: dict[str, bytes] = {}
    for node_id, name, value in sorted(long, key=lambda found: len(found[2]), reverse=True):
        if excess <= 0:
            break
        data = value.encode()
        digest = hashlib.sha256(data).hexdigest()
        texts[digest] = data
        parked.setdefault(node_id, {})[name] = digest
        excess -= len(data) - len(node_id) - len(name) - REFERENCE_BYTES
    holes = {(node_id, name): "" for node_id, names in parked.items() for name in names}
    return _filled(graph, holes), parked, texts


def _filled(graph: dict[str, Any], values: dict[tuple[str, str], str]) -> dict[str, Any]:
    filled = dict(graph)
    for (node_id, name), value in values.items():
        node = filled[node_id]
        filled[node_id] = {**node, "inputs": {**node["inputs"], name: value}}
    return filled


def _has_hole(graph: Any, node_id: str, name: str) -> bool:
    node = graph.get(node_id) if isinstance(graph, dict) else None
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return isinstance(inputs, dict) and inputs.get(name) == ""
