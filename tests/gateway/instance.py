"""One instance of a function: its start in the documented order, its sleep between requests, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.gateway.calls import Call, hook_call
from tests.gateway.function import Account, Function, container_variables
from tests.gateway.journal import Journal, What
from tests.gateway.processes import ProcessTree, own_port

#: Section 1: the port must take a connection within this time.
PORT_SECONDS = 120

#: Section 2.
INITIALIZE_SECONDS = 300
PRE_STOP_SECONDS = 90

#: Failed health checks in a row that discard an instance, after the first check, which must not fail at all.
FAILURE_THRESHOLD = 3

#: How long after a broken connection the end of its process may show.
EXIT_SECONDS = 2

STEP_SECONDS = 0.02  # how often a port is tried that nobody listens on yet


class Phase(Enum):
    STARTING = auto()  #: takes no request yet; some may wait for it
    READY = auto()
    STOPPING = auto()  #: gets no request any more; still counts against the cap
    DEAD = auto()


class StartFailed(Exception):
    """The instance could not be started; what the caller gets is in section 2."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class InitializationFailed(StartFailed):
    """POST /initialize did not answer 2xx."""

    def __init__(self) -> None:
        super().__init__("InitializationError", "POST /initialize did not answer 2xx")


class Instance:
    """A running container. `taken` is how many requests it was given, `is_frozen` whether it sleeps.

    Whoever sends it something does so between `enter` and `leave`: outside of them it may be frozen.
    """

    def __init__(self, function: Function, account: Account, journal: Journal, folder: Path) -> None:
        self.function, self._account, self._journal = function, account, journal
        self.id = f"c-{uuid.uuid4().hex[:12]}"
        self.folder = folder / self.id
        self.port = own_port()
        self.environment: dict[str, str] = {}
        self.phase = Phase.STARTING
        self.taken = 0
        self.billed_seconds = 0
        self.on_idle: Callable[[], None] = lambda: None  #: called when the last open request has ended
        self._open = 0
        self._opened_at = 0.0
        self.is_initialized = not function.has_initializer
        self._background: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession
        self._tree: ProcessTree

    @property
    def open_requests(self) -> int:
        return self._open

    @property
    def log(self) -> Path:
        """Section 7: what the platform collects is stdout."""
        return self.folder / "stdout.log"

    @property
    def is_frozen(self) -> bool:
        return self._tree.is_stopped

    @property
    def has_room(self) -> bool:
        return self.taken < self.function.instance_concurrency

    # --- Start: section 1 ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """TCP check, POST /initialize, first health check; then it is ready. Raises StartFailed."""
        self.folder.mkdir(parents=True)
        self.environment = container_variables(self.function, self._account, self.id, self.port, self.folder)
        self._tree = await ProcessTree.start(self.function.command, self.environment, self.folder, self.log)
        self._note(What.STARTED)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15 * 60),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        self._spawn(self._watch())
        try:
            with self.awake():
                await self._pass_checks()
                self.phase = Phase.READY
        except StartFailed as failure:
            self._note(What.DISCARDED, str(failure))
            await self.kill()
            raise
        self._note(What.READY)
        self._spawn(self._keep_checking())
        if not self.is_initialized:
            raise InitializationFailed

    async def _pass_checks(self) -> None:
        await self._connect()
        try:
            await self.initialize()
        except InitializationFailed:
            if self.phase is Phase.DEAD:
                raise
        if not await self._check():
            raise StartFailed("FunctionNotStarted", "the first health check failed")

    async def _connect(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PORT_SECONDS):
                while self._tree.is_alive:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    except OSError:
                        await asyncio.sleep(STEP_SECONDS)  # nobody tells when somebody begins to listen
                    else:
                        writer.close()
                        await writer.wait_closed()
                        return self._note(What.CONNECTED)
        raise StartFailed("FunctionNotStarted", "nobody listens on the port")

    async def initialize(self) -> None:
        """Section 2: 2xx once per instance; with 404 and 400 it lives on and the next request tries again; with 500
        it does not. Raises InitializationFailed."""
        if self.is_initialized:
            return
        status = await self._hook("POST", "/initialize", INITIALIZE_SECONDS)
        self._note(What.INITIALIZED, str(status))
        self.is_initialized = 200 <= status < 300
        if status >= 500:
            await self.kill()
        if not self.is_initialized:
            raise InitializationFailed

    async def _check(self) -> bool:
        """Section 1: 200 to 399 is healthy. Without a path there is no check but the first one, of the port."""
        if self.function.health_path is None:
            return True
        status = await self._hook("GET", self.function.health_path, self.function.health_timeout_seconds)
        self._note(What.CHECKED, str(status))
        return 200 <= status < 400

    async def _keep_checking(self) -> None:
        """Periodic checks of an instance that is awake; one that sleeps cannot be asked."""
        failures = 0
        while self.phase is Phase.READY and failures < FAILURE_THRESHOLD:
            await asyncio.sleep(self.function.health_period_seconds)
            if self._open:
                failures = 0 if await self._check() else failures + 1
        if self.phase is Phase.READY:
            self._note(What.DISCARDED, "health checks failed")
            self._spawn(self.kill())

    async def _hook(self, method: str, path: str, seconds: float) -> int:
        """The status of a request of the platform's own; 599 if there was none in time."""
        call = hook_call(method, path, self.function, self._account)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with asyncio.timeout(seconds), self.send(call) as response:
                await response.read()
                return response.status
        return 599

    # --- Requests: sections 5 and 6 ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """While a request of ours is open."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """A request is about to be sent. The first one thaws the instance, and its bill begins."""
        self._open += 1
        if self._open > 1:
            return
        self._opened_at = time.monotonic()
        if self._tree.is_stopped:
            self._tree.go_on()
            self._note(What.THAWED)

    def leave(self) -> None:
        """A request is over. With the last open one the instance freezes at once, and its bill ends: section 9."""
        self._open -= 1
        if self._open:
            return
        self.billed_seconds += math.ceil(time.monotonic() - self._opened_at)
        if self._tree.is_alive and self.phase in (Phase.STARTING, Phase.READY):
            self._tree.stop()
            self._note(What.FROZEN)
        self.on_idle()

    @contextlib.asynccontextmanager
    async def send(self, call: Call, body: Any = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """Hand a request over. Leaving early closes its connection: all that a container may notice of it."""
        async with (
            self._request(call),
            self._http.request(
                call.method,
                self.url_of(call),
                headers=call.headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as response,
        ):
            yield response

    @contextlib.asynccontextmanager
    async def connect(self, call: Call) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Section 5: one WebSocket is one request."""
        ours = {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "host"}
        headers = {name: value for name, value in call.headers.items() if name.lower() not in ours}
        async with (
            self._request(call),
            self._http.ws_connect(
                self.url_of(call), headers=headers, autoping=False, max_msg_size=0
            ) as socket,
        ):
            yield socket

    @contextlib.asynccontextmanager
    async def _request(self, call: Call) -> AsyncIterator[None]:
        """Note its begin and end. Where it broke because the process ended, that is known before anybody else is
        given the same instance."""
        self._note(What.DELIVERED, str(call))
        try:
            yield
        except aiohttp.ClientConnectionError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_SECONDS):
                    await self._watch()
            raise
        finally:
            self._note(What.ENDED, str(call))

    def url_of(self, call: Call) -> URL:
        return URL(f"http://127.0.0.1:{self.port}{call.target}", encoded=True)

    # --- The end -------------------------------------------------------------------------------------------------

    async def retire(self) -> None:
        """Scale-in: GET /pre-stop if it is configured, whose failure stops nothing, then SIGKILL. No SIGTERM."""
        if self.phase is not Phase.READY:
            return
        self.phase = Phase.STOPPING
        if self.function.has_pre_stop and self._tree.is_alive:
            with self.awake():
                self._note(What.PRE_STOP, str(await self._hook("GET", "/pre-stop", PRE_STOP_SECONDS)))
        await self.kill()

    async def kill(self) -> None:
        """What a crash, a node failure or memory shortage look like: no hook, no signal that could be handled."""
        if self.phase is not Phase.DEAD:
            self.phase = Phase.DEAD
            self._note(What.KILLED)
        await self._tree.kill()
        await self._http.close()
        self.on_idle()

    async def close(self) -> None:
        """For the end of a test: nothing is left, whatever state it was in."""
        if hasattr(self, "_tree"):
            await self.kill()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _watch(self) -> None:
        await self._tree.wait()
        if self.phase is not Phase.DEAD:
            self.phase = Phase.DEAD
            self._note(What.EXITED)
            await self._http.close()
            self.on_idle()

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _note(self, what: What, detail: str = "") -> None:
        self._journal.note(what, self.function.name, self.id, detail)
