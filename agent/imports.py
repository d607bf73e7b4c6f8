"""Which modules the service loads when: few before its port is open, the others while the engine starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

from agent.settings import Role

#: What libraries load wherever it is installed, for what the service does not use of them: tracebacks that show local
#: variables (structlog), a command line (httpx), and measurements of each command (redis; our traces load the SDK
#: themselves). Together a fifth of the start, and 12 MB.
UNUSED = ("rich", "pygments", "click", "greenlet", "opentelemetry")
UNUSED_BY_HTTPX = ("rich", "pygments", "click")

#: What the first task of an instance with an engine needs: pictures, the engine's socket, inputs by URL.
FOR_TASKS = ("websockets.asyncio.client", "agent.inputs.media", "PIL.PngImagePlugin", "agent.inputs.fetch")


@contextmanager
def without(names: Iterable[str] = UNUSED) -> Iterator[None]:
    """While this lasts, these cannot be imported, as if they were not installed. What is loaded stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None is how to say that there is none
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


async def preload(role: Role) -> None:
    """Make ready, beside everything else, what the first task will need."""
    for name in () if role is Role.FRONT else FOR_TASKS:
        await asyncio.to_thread(_load, name)
    from agent.api.models import RunOptions  # noqa: PLC0415 - loaded by now; `without` comes before it
    from agent.tasks.record import TaskRecord  # noqa: PLC0415

    for model in (RunOptions, TaskRecord):
        model.model_rebuild()  # milliseconds each, on the event loop: pydantic does not say that threads may
        await asyncio.sleep(0)


def _load(name: str) -> None:
    with without(UNUSED_BY_HTTPX):  # the traces may load their SDK meanwhile
        import_module(name)
