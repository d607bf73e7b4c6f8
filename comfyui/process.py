"""One child process: its output, its end, and the certainty that nothing of it outlives us."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from comfyui.errors import EngineFailedError
from comfyui.launch import Launch, dying_with_us

log = structlog.get_logger(__name__)

KEPT_LINES = 50  # for post-mortems: a Python traceback with its introduction
MAX_LINE_BYTES = 8192
CHUNK_BYTES = 16_384  # read at once; small, since each of its lines is logged before the event loop goes on
PROGRESS_SECONDS = 1.0  # between two relayed progress lines
DRAIN_SECONDS = 0.5  # for output that is still in the pipe when the process is dead
KILL_SECONDS = 10.0  # a process that survives SIGKILL this long hangs inside the kernel


@dataclass(frozen=True)
class Line:
    """One line of output. `is_progress`: ended by a carriage return, so that the next one overwrites it."""

    text: str
    is_progress: bool


class LineSplitter:
    """Splits chunks of output into lines, in bounded memory: what a line has beyond `MAX_LINE_BYTES` is dropped."""

    # A return at the very end waits for the next chunk: it may be half of "\r\n".
    _END = re.compile(rb"\r\n|\n|\r(?!\Z)")

    def __init__(self) -> None:
        self._rest = b""
        self._is_cut = False

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that `chunk` completes, and the beginning of one that grew too long."""
        data, lines, begin = self._rest + chunk, [], 0
        for end in self._END.finditer(data):
            lines += self._piece(data[begin : end.start()], is_progress=end[0] == b"\r")
            self._is_cut = False
            begin = end.end()
        self._rest = data[begin:]
        if len(self._rest) > MAX_LINE_BYTES:
            lines += self._piece(self._rest, is_progress=False)
            self._is_cut = True
            self._rest = self._rest[-1:] if self._rest.endswith(b"\r") else b""
        return lines

    def flush(self) -> list[Line]:
        """Return the line that the end of the stream left unfinished."""
        rest, self._rest = self._rest.rstrip(b"\r"), b""
        return self._piece(rest, is_progress=False)

    def _piece(self, data: bytes, *, is_progress: bool) -> list[Line]:
        if self._is_cut or not data.strip():
            return []
        text = data[:MAX_LINE_BYTES].decode(errors="replace")
        return [Line(text + (" [cut]" if len(data) > MAX_LINE_BYTES else ""), is_progress)]


class Relay:
    """Hands lines to the log and keeps the last of them; of progress lines only one a second.

    One per stream: progress on stderr says nothing about stdout. `clock` returns seconds.
    """

    def __init__(self, stream: str, kept: deque[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._kept, self._clock = stream, kept, clock
        self._next_progress = float("-inf")

    def relay(self, lines: list[Line]) -> None:
        for line in lines:
            if line.is_progress:
                if self._clock() < self._next_progress:
                    continue
                self._next_progress = self._clock() + PROGRESS_SECONDS
            self._kept.append(line.text)
            log.info("engine.output", line=line.text, stream=self._stream)


class OutputPipe:
    """A pipe whose reading end is emptied by the event loop, whatever the child writes.

    It is ours and not asyncio's: there, a grandchild that holds the pipe keeps `Process.wait()` from returning.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay, self._splitter = relay, LineSplitter()
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        asyncio.get_running_loop().add_reader(self._reading, self._read)
        self.ended = asyncio.Event()  #: nobody can write any more, or it was closed

    def close_writing(self) -> None:
        """Close our copy of the writing end, once the child has its own."""
        os.close(self.writing)

    def close(self) -> None:
        """Stop reading. May be called twice."""
        if self.ended.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        self.ended.set()
        self._relay.relay(self._splitter.flush())

    def _read(self) -> None:
        try:
            chunk = os.read(self._reading, CHUNK_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._relay.relay(self._splitter.feed(chunk))
        else:
            self.close()


@dataclass(frozen=True)
class ExitReport:
    """How a child ended. Exactly one of `exit_code` and `signal_name` is set."""

    exit_code: int | None
    signal_name: str | None
    seconds: float  #: from its start to its death
    last_lines: tuple[str, ...]  #: at most `KEPT_LINES`, oldest first

    @property
    def summary(self) -> str:
        """One sentence: how, after how long, and the last thing it said."""
        how = (
            f"was killed by {self.signal_name}" if self.signal_name else f"exited with code {self.exit_code}"
        )
        said = f"; its last line: {self.last_lines[-1]}" if self.last_lines else " without a word"
        return f"the engine {how} after {self.seconds:.1f} s{said}"


class ChildProcess:
    """A running child in a session and process group of its own. Made by `start()`, ended by `stop()`.

    When it dies, the rest of its group is killed too; only a descendant that made itself a session of its own escapes.
    `wait()` and `stop()` may be called any number of times, by several callers at once.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, pipes: list[OutputPipe], kept: deque[str]
    ) -> None:
        self.pid = process.pid
        self._process, self._pipes, self._kept = process, pipes, kept
        self._started = time.monotonic()
        self._end = asyncio.create_task(self._watch(), name=f"child-{process.pid}")

    @classmethod
    async def start(cls, launch: Launch) -> ChildProcess:
        """Start `launch`. Raises EngineFailedError when there is no such program or folder.

        Call it on the main thread: the kernel ties the child's life to the thread that started it.
        """
        kept: deque[str] = deque(maxlen=KEPT_LINES)
        pipes: list[OutputPipe] = []
        try:
            pipes += (OutputPipe(Relay(stream, kept)) for stream in ("stdout", "stderr"))
            process = await asyncio.create_subprocess_exec(
                *dying_with_us(launch.argv),
                cwd=launch.cwd,
                env=dict(launch.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipes[0].writing,
                stderr=pipes[1].writing,
                start_new_session=True,
            )
        except BaseException as exc:
            for pipe in pipes:
                pipe.close()
            if isinstance(exc, OSError):
                raise EngineFailedError(f"the engine cannot be started: {exc}") from exc
            raise
        finally:
            for pipe in pipes:
                pipe.close_writing()
        return cls(process, pipes, kept)

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._kept)

    async def wait(self) -> ExitReport:
        """Wait for the end, however long that takes. A cancelled wait changes nothing."""
        return await asyncio.shield(self._end)

    async def stop(self, grace_seconds: float) -> ExitReport:
        """End the whole group: SIGTERM, after `grace_seconds` SIGKILL. A cancelled stop kills at once.

        Raises EngineFailedError when it survives even that, which only a hang inside the kernel (a driver) can do.
        """
        try:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process would not notice
            return await asyncio.wait_for(self.wait(), grace_seconds)
        except TimeoutError:
            log.warning("engine.kill", pid=self.pid, grace_seconds=grace_seconds)
        finally:
            self._signal(signal.SIGKILL)
        try:
            return await asyncio.wait_for(self.wait(), KILL_SECONDS)
        except TimeoutError:
            raise EngineFailedError(
                f"the engine's process {self.pid} hangs in the kernel and cannot be killed"
            ) from None

    async def _watch(self) -> ExitReport:
        try:
            code = await self._process.wait()  # no deadline: this is the child's life
            seconds = time.monotonic() - self._started
            self._signal(signal.SIGKILL)  # the rest of its group
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    for pipe in self._pipes:
                        await pipe.ended.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)  # the loop shuts down: nobody will look after the child any more
            raise
        finally:
            for pipe in self._pipes:
                pipe.close()
        return _report(code, seconds, self.last_lines)

    def _signal(self, number: signal.Signals) -> None:
        if not self._end.done():  # later, the number may be another group's
            with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of zombies
                os.killpg(self.pid, number)


def _report(code: int, seconds: float, last_lines: tuple[str, ...]) -> ExitReport:
    if code >= 0:
        return ExitReport(code, None, seconds, last_lines)
    is_named = -code in set(signal.Signals)  # real-time signals are not
    name = signal.Signals(-code).name if is_named else f"signal {-code}"
    return ExitReport(None, name, seconds, last_lines)
