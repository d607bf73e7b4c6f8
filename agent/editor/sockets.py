"""The open WebSockets of ComfyUI's clients, by the client id that they chose. Of two with one id, the later counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agent.editor import messages
from agent.editor.messages import Message
from comfyui.events import Event, PreviewImage

#: Messages that wait for a client who reads slowly. Then he is cut off: an editor connects again and asks for what it
#: missed, as it does with ComfyUI.
MAX_WAITING = 2000


class Outbox:
    """What one client is still to be sent."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Message | None] = asyncio.Queue(MAX_WAITING)
        self.wants_metadata = False

    def put(self, message: Message) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.close()

    def close(self) -> None:
        """Nothing more comes: another socket has the client's id, he is too slow, or the service ends."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        with suppress(asyncio.QueueFull):
            self._waiting.put_nowait(None)

    async def next(self) -> Message | None:
        """The next message; None: there will be none."""
        return await self._waiting.get()


class Sockets:
    """Hands messages to clients. None waits for a slow one."""

    def __init__(self) -> None:
        self._open: dict[str, Outbox] = {}

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._open

    @contextmanager
    def opened(self, client_id: str) -> Iterator[Outbox]:
        """A client's socket while it is open."""
        if older := self._open.get(client_id):
            older.close()
        outbox = self._open[client_id] = Outbox()
        try:
            yield outbox
        finally:
            if self._open.get(client_id) is outbox:
                del self._open[client_id]

    def tell_event(self, client_id: str, prompt_id: str, event: Event) -> None:
        """What happens to a prompt, to the client who queued it."""
        if (outbox := self._open.get(client_id)) is None:
            return
        if isinstance(event, PreviewImage):
            outbox.put(messages.of_preview(event, prompt_id, with_metadata=outbox.wants_metadata))
        elif (message := messages.of_event(event, prompt_id)) is not None:
            outbox.put(message)

    def tell(self, client_id: str, *told: Message) -> None:
        if outbox := self._open.get(client_id):
            for message in told:
                outbox.put(message)

    def tell_all(self, message: Message) -> None:
        for outbox in self._open.values():
            outbox.put(message)

    def close(self) -> None:
        for outbox in self._open.values():
            outbox.close()
