"""The engine as the rest of the program sees it: is it ready, which one is it, why not, start it anew."""

from __future__ import annotations

import asyncio
import shlex
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import structlog

from comfyui.errors import EngineFailedError
from comfyui.launch import EngineLimits, Launch, Patience, RestartPolicy
from comfyui.process import ChildProcess

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 1.0  # loopback answers in microseconds; an attached engine may be a network away
PROBE_SLICES = 20  # into which the time of a probe is divided
POLL_SECONDS = (0.05, 0.5)  # shortest and longest pause between two probes of a loading engine
SHOWN_LINES = 10  # of a dead engine's last words, in a reason that callers read


class EngineState(StrEnum):
    """Where an engine is in its life."""

    STARTING = "starting"  #: launched, or looked for, for the first time; has not answered yet
    READY = "ready"  #: answers, or is trusted to be merely busy
    RESTARTING = "restarting"  #: was lost or failed to start; the next one is on its way
    FAILED = "failed"  #: several attempts in vain, see `reason`; tried again at long intervals
    STOPPED = "stopped"  #: before start() and after stop(); stays so


class Engine:
    """An engine that is kept running (`launch`), or one that others run and we follow (`launch` None).

    `probe` returns when the engine at `url` answers and raises anything when it does not. Every method may be called
    at any time, by several callers at once, on the event loop's (main) thread. The attributes are for reading.
    """

    def __init__(
        self,
        url: str,
        launch: Launch | None,
        probe: Callable[[], Awaitable[None]],
        limits: EngineLimits | None = None,
    ) -> None:
        self.url, self._launch, self._probe = url, launch, probe
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._limits = limits or EngineLimits()
        self.state = EngineState.STOPPED
        self.generation = 0  #: +1 whenever a launched, or returned, engine becomes ready
        self.ready_at: datetime | None = None  #: when the latest generation became ready
        self.restarts = (
            0  #: lives that ended since start(): deaths, hangs, failed starts, restarts on request
        )
        self._reason = "it was not started"
        self._gone_reason = ""
        self._loading_since: float | None = None
        self._ready_since = 0.0
        self._child: ChildProcess | None = None
        self._grace = self._limits.grace_seconds
        self._restart_ordered = asyncio.Event()
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[Engine], None]] = []
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None between two children and for an attached engine."""
        return self._child.pid if self._child else None

    @property
    def reason(self) -> str:
        """Why it is not ready, with the last lines of one that died; empty when it is."""
        if self._loading_since is None or self.state is EngineState.FAILED:
            return self._reason
        what = "the engine has been loading" if self._launch else f"nobody has answered at {self.url}"
        loading = f"{what} for {time.monotonic() - self._loading_since:.0f} s"
        return f"{loading}; before that: {self._reason}" if self._reason else loading

    def on_change(self, listener: Callable[[Engine], None]) -> Callable[[], None]:
        """Call `listener` after each change of state, reason or generation, until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def start(self) -> None:
        """Begin to supervise; returns at once. Does nothing when already begun and not fully stopped."""
        if self._supervisor is None:
            self._grace = self._limits.grace_seconds
            self._change(EngineState.STARTING, "")
            work = self._keep_alive(self._launch) if self._launch else self._follow()
            self._supervisor = asyncio.create_task(work, name="engine-supervisor")

    async def stop(self, grace_seconds: float = 10) -> None:
        """End the child (SIGTERM, after `grace_seconds` SIGKILL) and the supervision; leaves an attached engine alone.

        A cancelled stop goes on in the background.
        """
        if (supervisor := self._supervisor) is None:
            return
        if self.state is not EngineState.STOPPED:
            self._grace, self._loading_since = grace_seconds, None
            self._change(EngineState.STOPPED, "it was stopped")
            supervisor.cancel()
        await asyncio.wait({supervisor})
        if self._supervisor is supervisor:
            self._supervisor = None

    async def wait_ready(self, timeout: float) -> int:
        """Return the generation as soon as the engine is ready.

        Raises EngineFailedError as soon as it is failed or stopped, or after `timeout` seconds; the text says why.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.state is not EngineState.READY:
                    if self.state in (EngineState.FAILED, EngineState.STOPPED):
                        raise EngineFailedError(f"the engine is {self.state}: {self.reason}")
                    await self._changed.wait()
        except TimeoutError:
            raise EngineFailedError(f"the engine is not ready after {timeout:g} s: {self.reason}") from None
        return self.generation

    async def wait_gone(self, generation: int) -> str:
        """Return why `generation` no longer runs, as soon as it does not. Without a deadline: it may run for ever."""
        while self.state is EngineState.READY and self.generation == generation:
            await self._changed.wait()
        return self._gone_reason or f"generation {generation} never ran"

    def restart(self, reason: str, generation: int | None = None) -> bool:
        """Kill the engine and start it anew; returns at once. False: it is attached, and not ours to restart.

        Does nothing while it is not ready, or when `generation` is given and another one runs already: of several
        callers that saw the same fault, the slow ones shall not kill its successor.
        """
        if self._launch is None:
            return False
        if self.state is EngineState.READY and generation in (None, self.generation):
            self._lose(reason)
            self._restart_ordered.set()
        return True

    def note_restart(self, reason: str) -> None:
        """Count a new generation of a ready engine that somebody else restarted, too quickly for our probes."""
        if self.state is EngineState.READY:
            self._gone_reason = reason
            self.restarts += 1
            self._become_ready()

    async def _keep_alive(self, launch: Launch) -> None:
        policy = RestartPolicy(self._limits.restarts)
        while True:
            before, is_refused = self.generation, False
            self._restart_ordered.clear()
            try:
                reason = await self._live(launch)
            except EngineFailedError as exc:  # not even launched: waiting longer would not tell more
                reason, is_refused = str(exc), True
            except Exception as exc:  # a fault of ours must not end the supervision
                log.exception("engine.supervisor_failed")
                reason = f"{type(exc).__name__}: {exc}"
            now = time.monotonic()
            policy.died(now, now - self._ready_since if self.generation > before else None)
            self.restarts += 1
            verdict = policy.verdict()
            if verdict or is_refused:
                self._fail(f"{verdict}: {reason}" if verdict and not is_refused else reason)
            else:
                self._change(EngineState.RESTARTING, reason)
            await asyncio.sleep(policy.delay())

    async def _live(self, launch: Launch) -> str:
        """Take one child from its launch to its end, and return why it ended."""
        # A stranger on the port would answer our probes. One that takes it after this check ends the child, which
        # cannot bind it any more.
        if await _has_listener(self._host, self._port):
            raise EngineFailedError(
                f"port {self._port} is already in use: set COMFYUI_PORT, or COMFYUI_URL to attach to it"
            )
        self._child = child = await ChildProcess.start(launch)
        log.info("engine.launched", pid=child.pid, command=shlex.join(launch.argv))
        try:
            reason = await _first(_death(child), self._ordered_restart(), self._watch_answers())
            reason = _with_last_words(reason, child.last_lines)
            self._lose(reason)
            return reason
        finally:
            self._loading_since = None
            await self._put_down(child)
            self._child = None

    async def _follow(self) -> None:
        """Watch an engine that others run: it has no back-off, and is looked for without end."""
        while True:
            before = self.generation
            reason = await self._watch_answers()
            if self.generation == before:
                self._fail(reason)
            else:
                self.restarts += 1
                self._lose(reason)

    async def _watch_answers(self) -> str:
        """Probe until the engine answers, then until it is lost; return why it is lost or never answered."""
        begun = self._loading_since = time.monotonic()
        if reason := await self._until_ready():
            return reason
        self._loading_since = None
        self._become_ready()
        seconds = round(time.monotonic() - begun, 3)
        log.info("engine.ready", seconds=seconds, generation=self.generation, pid=self.pid)
        return await self._until_lost()

    async def _until_ready(self) -> str | None:
        """Return None when it answers, or why it is given up."""
        limits = self._limits
        patience = Patience(
            limits.start_seconds, limits.probe_timeout_seconds + POLL_SECONDS[1], time.monotonic()
        )
        # ComfyUI has no readiness signal: it binds its port when all nodes are imported, and only its log, which
        # flags can silence, says so. Hence polling, at a tenth of the time waited so far: a quick start is noticed
        # at once, and a slow one not disturbed.
        while error := await self._probe_error():
            patience.failed(time.monotonic())
            if patience.is_exhausted:
                return f"the engine gave no answer at {self.url} within {limits.start_seconds:g} s ({error})"
            await asyncio.sleep(min(max(patience.seconds / 10, POLL_SECONDS[0]), POLL_SECONDS[1]))
        return None

    async def _until_lost(self) -> str:
        limits = self._limits
        longest_step = limits.probe_seconds + limits.probe_timeout_seconds
        patience = Patience(limits.unresponsive_seconds, longest_step, time.monotonic())
        while True:
            await asyncio.sleep(limits.probe_seconds)
            error = await self._probe_error()
            if error is None:
                patience.answered(time.monotonic())
                continue
            patience.failed(time.monotonic())
            # Of a child we know that it lives. A stranger whose port is closed does not.
            if self._launch is None and await _has_listener(self._host, self._port) is False:
                return f"the engine at {self.url} is gone ({error})"
            if patience.is_exhausted:
                return f"the engine has not answered for {patience.seconds:.0f} s ({error})"

    async def _probe_error(self) -> str | None:
        """Probe once; return what went wrong, or None. Whatever the probe raises means that there is no answer."""
        probe = asyncio.ensure_future(self._probe())
        try:
            # In slices, for a platform that freezes the instance and wakes it for milliseconds, again and again: each
            # wake takes one slice at most, however long the sleep was, and the answer still has its time.
            for _ in range(PROBE_SLICES):
                await asyncio.wait((probe,), timeout=self._limits.probe_timeout_seconds / PROBE_SLICES)
                if probe.done():
                    probe.result()
                    return None
        except Exception as exc:  # noqa: BLE001 - see the docstring
            return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
        return "TimeoutError"

    async def _ordered_restart(self) -> str:
        await self._restart_ordered.wait()
        return self._reason

    async def _put_down(self, child: ChildProcess) -> None:
        try:
            await child.stop(self._grace)
        except EngineFailedError as exc:  # its port tells the next start
            log.error("engine.unkillable", pid=child.pid, error=str(exc))

    def _become_ready(self) -> None:
        self.generation += 1
        self.ready_at, self._ready_since = datetime.now(UTC), time.monotonic()
        self.state, self._reason = EngineState.READY, ""
        self._announce()

    def _lose(self, reason: str) -> None:
        if self.state is EngineState.READY:
            log.warning("engine.lost", generation=self.generation, reason=reason)
            self._change(EngineState.RESTARTING, reason)

    def _fail(self, reason: str) -> None:
        log.error("engine.failed", reason=reason)
        self._change(EngineState.FAILED, reason)

    def _change(self, state: EngineState, reason: str) -> None:
        if self.state is EngineState.READY:
            self._gone_reason = reason
        if (state, reason) != (self.state, self._reason):
            self.state, self._reason = state, reason
            self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in tuple(self._listeners):
            try:
                listener(self)
            except Exception:  # a listener's fault is not the engine's
                log.exception("engine.listener_failed")


async def _death(child: ChildProcess) -> str:
    return (await child.wait()).summary


def _with_last_words(reason: str, lines: tuple[str, ...]) -> str:
    return "\n".join((reason, *lines[-SHOWN_LINES:]))


async def _first(*waits: Coroutine[Any, Any, str]) -> str:
    """Return the result of the first to end (of several, the leftmost); the others are cancelled and awaited."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _has_listener(host: str, port: int) -> bool | None:
    """Say whether anybody accepts connections there. None: cannot tell (too busy, no such name)."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, socket.gaierror, UnicodeError):
        return None
    except (
        OSError
    ):  # not only ConnectionRefusedError: for a name with two addresses asyncio raises a mere OSError
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
