"""How large an answer is, told before it is made."""

from __future__ import annotations

from collections.abc import Sequence

from agent.tasks.record import Output, TaskRecord

#: What stands around one result, and around those of one node: quotes, commas, names.
AROUND_RESULT = 4
AROUND_NODE = 32


def base64_bytes(size: int) -> int:
    """The length of so many bytes as padded base64."""
    return (size + 2) // 3 * 4


def answer_bytes(record: TaskRecord, outputs: Sequence[Output] | None = None) -> int:
    """No fewer bytes than the result of this task has as JSON, with every output in it that does not lie in the object
    store. `outputs` replace those of the record."""
    inside = [o for o in (record.outputs if outputs is None else outputs) if o.object_key is None]
    progress = len(record.model_dump_json(include={"nodes"}).encode()) + AROUND_NODE * len(record.nodes)
    return progress + sum(base64_bytes(o.bytes) + AROUND_RESULT for o in inside)
