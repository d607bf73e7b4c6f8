"""A line to an agent that breaks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

from tests.integration.reliability.proxy import TcpProxy

SECONDS = 20


class Line:
    """A line to an agent that breaks when it is told to; on an event loop of its own, in a thread."""

    def __init__(self, port: int) -> None:
        self._proxy, self._loop = TcpProxy(port), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def cut(self) -> int:
        """Reset all connections; how many there were."""

        async def cut() -> int:
            return self._proxy.cut()

        cut_off: int = self._do(cut())
        return cut_off

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._do(self._proxy.__aenter__()).url
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._proxy.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
