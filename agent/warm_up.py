"""Runs one workflow before the first caller comes, so that the models are loaded and what is compiled is compiled."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic_core import from_json

from agent.admission import RunRequest, new_task_id
from agent.errors import AgentError
from agent.executor import Executor
from agent.settings import Settings, SettingsError
from agent.tasks.live import LiveTask
from agent.tasks.record import TaskRecord
from agent.tasks.store import TaskStore
from comfyui.errors import InvalidWorkflowError
from comfyui.workflow import Workflow

log = structlog.get_logger(__name__)


def read_warm_up(settings: Settings) -> RunRequest | None:
    """The workflow of the file that AGENT_WARM_UP names; None where it names none. Raises SettingsError."""
    if settings.warm_up is None:
        return None
    try:
        workflow = Workflow.parse(from_json(Path(settings.warm_up).read_bytes(), allow_inf_nan=False))
        return RunRequest(workflow, workflow.digest())
    except OSError as exc:
        raise SettingsError(f"AGENT_WARM_UP: {settings.warm_up}: {exc.strerror or exc}") from None
    except InvalidWorkflowError as exc:
        raise SettingsError(f"AGENT_WARM_UP: {settings.warm_up}: {exc}") from None
    except ValueError as exc:
        raise SettingsError(f"AGENT_WARM_UP: {settings.warm_up} is not JSON: {exc}") from None


class WarmUp:
    """One run on the engine that is nobody's task: it is in no store and no list, and what it makes is thrown away.

    It takes place once in the life of the process. An engine that is restarted is not warmed up again: tasks wait for
    it then, and the first of them loads what it needs itself; before that, a warm-up would only keep it waiting, and
    one that kills the engine would do so for ever. Whatever goes wrong is a line in the log.
    """

    def __init__(
        self, request: RunRequest | None, executor: Executor, store: TaskStore, *, timeout_seconds: float
    ) -> None:
        self._request, self._executor, self._store = request, executor, store
        self._timeout_seconds = timeout_seconds
        self._run: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None

    def thaw(self, frozen_seconds: float) -> None:
        """This instance was frozen: the time does not count. Between its initialization and its first request it is."""
        limit = self._limit
        if limit is not None and (when := limit.when()) is not None and not limit.expired():
            limit.reschedule(when + frozen_seconds)

    @property
    def is_under_way(self) -> bool:
        """Whether it waits for the engine or runs."""
        return self._run is not None and not self._run.done()

    def start(self) -> None:
        """Begin, as soon as the engine is ready. Returns at once."""
        if self._request is not None:
            self._run = asyncio.create_task(self._warm_up(self._request), name="warm-up")

    async def wait(self, timeout: float) -> bool:
        """Wait for its end, at most `timeout` seconds; whether it is over. Any number of callers may wait."""
        if self.is_under_way and self._run is not None:
            await asyncio.wait((self._run,), timeout=timeout)
        return not self.is_under_way

    async def stop(self) -> None:
        """Give it up if it is still under way."""
        if self._run is not None:
            self._run.cancel()
            with suppress(asyncio.CancelledError):
                await self._run

    async def _warm_up(self, request: RunRequest) -> None:
        began = time.monotonic()
        record = TaskRecord(
            id=new_task_id(), created_at=time.time(), workflow_digest=request.digest, nodes={}
        )
        # Without a right to write it, it is never in the store.
        live = LiveTask(record, self._store, None, is_background=True, must_keep=False)
        log.info("warm_up.waiting", nodes=len(request.workflow.nodes))
        try:
            async with asyncio.timeout(self._timeout_seconds) as self._limit:
                collected = await self._executor.attempt(live, request)
        except AgentError as error:
            log.warning("warm_up.failed", error=error.code, detail=error.detail)
        except TimeoutError:
            log.warning("warm_up.failed", error="TaskTimeout", limit=self._timeout_seconds)
        except Exception:
            log.exception("warm_up.crashed")
        else:
            seconds = round(time.monotonic() - began, 3)
            log.info("warm_up.finished", seconds=seconds, outputs=len(collected), timings=live.record.timings)
        finally:
            self._executor.let_go(live)
