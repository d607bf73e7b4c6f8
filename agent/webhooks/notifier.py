"""Tells each task's end to its webhook, tries again where that may help, and keeps in the record how it went.

The instance that ends a task names the message in the final record (`due`) and posts it once that is stored
(`post`). Should it die in between, the next delivery of the task finds a message that nobody is at any more and
posts it under the same name (`resume`). So a receiver gets each end at least once, and can tell a repeated message.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic_core import to_json

from agent.errors import StoreUnavailable
from agent.tasks.record import TaskRecord, Webhook, WebhookState
from agent.tasks.store import TaskStore
from agent.webhooks.sender import Answer, Sender

log = structlog.get_logger(__name__)

#: Pauses between the tries, in seconds; each is lengthened or shortened by up to half, so that the messages of many
#: tasks do not come back together. The last one repeats.
PAUSES = (1.0, 2.0, 4.0, 8.0)

#: What storing and a busy instance may take beside a try before others think that nobody is at it any more.
MARGIN_SECONDS = 2

#: Pauses before a record is read again whose message another instance is at. Nothing tells when it is done: whoever
#: follows a task is left with its final record.
REREAD_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)

#: Pauses between tries to store how it went: a Redis that is restarted shall not make a message look undelivered.
#: Behind a platform, where these seconds are billed, only the first of them count.
KEEP_PAUSES = (0.2, 0.5, 1, 2, 4, 8, 15)
BILLED_KEEP_PAUSES = KEEP_PAUSES[:4]


class Notifier:
    """Calls may run at the same time. `must_wait`: an instance stops when no request is open, so that `wait` and
    `resume` return only when the message is out, or given up; elsewhere they return at once. Everything that it has
    begun ends with `drain` and `close`.

    `default_url` is the webhook of tasks that name none. `render` gives a record as the API shows it.
    """

    def __init__(
        self,
        store: TaskStore,
        sender: Sender,
        *,
        render: Callable[[TaskRecord], Awaitable[dict[str, Any]]],
        default_url: str | None,
        max_attempts: int,
        total_seconds: float,
        must_wait: bool,
    ) -> None:
        self._store, self._sender, self._render = store, sender, render
        self._default_url = default_url
        self._max_attempts, self._total_seconds = max_attempts, total_seconds
        self._must_wait = must_wait
        #: How many messages this instance is done with.
        self.ended: Counter[WebhookState] = Counter()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._hurry = asyncio.Event()

    def plan(self, url: str | None) -> Webhook | None:
        """The webhook of a new task whose request names this URL. Raises ValueError for one that cannot be used."""
        target = self._default_url if url is None else url
        if target is None:
            return None
        url = self._sender.check(target)
        return Webhook(url=url, target=None if target == url else target)

    def due(self, webhook: Webhook | None) -> Webhook | None:
        """The webhook as the final record holds it: with the message's name, and this instance about to post it."""
        if webhook is None:
            return None
        return webhook.changed(id=f"msg_{uuid.uuid4().hex}", sending_until=self._promise())

    def post(self, record: TaskRecord) -> None:
        """Begin to post the end of a task that this instance has ended; its record may yet have to be stored."""
        webhook = record.webhook
        if webhook is not None and webhook.id is not None:
            self._begin(webhook.id, lambda: self._send(record, webhook))

    async def wait(self, record: TaskRecord | None) -> None:
        """Behind a platform: wait until this instance is done with the message of this task, if it is at it."""
        webhook = record.webhook if record is not None else None
        if self._must_wait and webhook is not None and webhook.id in self._sending:
            await asyncio.wait((self._sending[webhook.id],))

    async def resume(self, record: TaskRecord | None) -> None:
        """As `wait`; and post the message of a task that is over, if whoever was at it is gone."""
        webhook = record.webhook if record is not None and record.state.is_final else None
        if record is None or webhook is None or webhook.id is None:
            return
        task_id, message_id = record.id, webhook.id
        if webhook.state is WebhookState.PENDING and message_id not in self._sending:
            self._begin(message_id, lambda: self._take_over(task_id, message_id))
        await self.wait(record)

    async def drain(self, seconds: float) -> None:
        """Let each message have one more try at most, without a pause, and wait so long for that."""
        self._hurry.set()
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=seconds)

    async def close(self) -> None:
        """End everything. What was not posted stays `pending` in its record."""
        left = dict(self._sending)
        for webhook_id, sending in left.items():
            log.warning("webhook.not_sent", webhook_id=webhook_id, reason="the instance is being stopped")
            sending.cancel()
        await asyncio.gather(*left.values(), return_exceptions=True)
        await self._sender.close()

    def _begin(self, webhook_id: str, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except Exception:  # whatever it was: those who wait for the message must not see it
                log.exception("webhook.crashed", webhook_id=webhook_id)

        task = asyncio.create_task(run(), name=f"webhook {webhook_id}")
        self._sending[webhook_id] = task
        task.add_done_callback(lambda _: self._sending.pop(webhook_id))

    async def _take_over(self, task_id: str, webhook_id: str) -> None:
        """Wait until the message is out or nobody is at it any more; then post it."""
        deadline = time.monotonic() + self._total_seconds
        pauses = [*REREAD_PAUSES]
        while True:
            try:
                stored = await self._store.read(task_id)
            except StoreUnavailable as error:
                log.warning("webhook.not_resumed", task_id=task_id, reason=error.detail)
                return
            webhook = stored.record.webhook if stored is not None else None
            if stored is None or webhook is None or webhook.id != webhook_id:
                return
            if webhook.state is not WebhookState.PENDING:
                return
            left = (webhook.sending_until or 0) - time.time()
            if left <= 0 or time.monotonic() > deadline:  # the other one's clock may be wrong
                break
            await self._pause(min(left, pauses[0]))
            if self._hurry.is_set():
                return
            if len(pauses) > 1:
                pauses.pop(0)
        log.info("webhook.resumed", task_id=task_id, webhook_id=webhook_id)
        webhook = webhook.changed(sending_until=self._promise())
        await self._keep(task_id, webhook)
        await self._send(stored.record, webhook)

    async def _send(self, record: TaskRecord, webhook: Webhook) -> None:
        """Try until the message is taken, no try is left or none can help; keep after each how it went."""
        body, url = to_json(await self._message(record)), webhook.target or webhook.url
        deadline = time.monotonic() + self._total_seconds
        for tries in range(1, self._max_attempts + 1):
            left = max(0.1, deadline - time.monotonic())
            answer = await self._sender.post(url, str(webhook.id), body, seconds=left)
            webhook = webhook.changed(
                attempts=webhook.attempts + 1, last_status=answer.status, error=answer.error
            )
            pause = self._pause_after(answer, tries)
            if pause is None or time.monotonic() + pause > deadline:
                break
            log.info(
                "webhook.retried", task_id=record.id, url=webhook.url, seconds=pause, reason=answer.error
            )
            webhook = webhook.changed(sending_until=self._promise(pause))
            await self._keep(record.id, webhook)
            await self._pause(pause)
        ended = webhook.ended(time.time())
        self.ended[ended.state] += 1
        say = log.info if ended.state is WebhookState.DELIVERED else log.warning
        say(
            f"webhook.{ended.state}",
            task_id=record.id,
            webhook_id=ended.id,
            url=ended.url,
            attempts=ended.attempts,
            status=ended.last_status,
            reason=ended.error,
        )
        await self._keep(record.id, ended, BILLED_KEEP_PAUSES if self._must_wait else KEEP_PAUSES)

    async def _message(self, record: TaskRecord) -> dict[str, Any]:
        moment = datetime.fromtimestamp(record.finished_at or time.time(), UTC)
        data = await self._render(record)
        data.pop("webhook", None)  # it tells how this very message gets on
        return {"type": f"task.{record.state}", "timestamp": moment.isoformat(), "data": data}

    def _pause_after(self, answer: Answer, tries: int) -> float | None:
        """Seconds until the next try; None when there is none."""
        if answer.error is None or answer.is_last or tries == self._max_attempts or self._hurry.is_set():
            return None
        usual = PAUSES[min(tries, len(PAUSES)) - 1] * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load
        return round(max(usual, answer.retry_after or 0), 1)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when the instance is about to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def _promise(self, pause: float = 0) -> float:
        """Until when this instance will have said how the next try went."""
        return round(time.time() + pause + self._sender.timeout_seconds + MARGIN_SECONDS, 3)

    async def _keep(self, task_id: str, webhook: Webhook, pauses: tuple[float, ...] = ()) -> None:
        """Store how it went with the end that the message tells of. That end may be stored later than it was posted,
        and by now the task may go on: then the record is another attempt's."""
        deadline, reason = time.monotonic() + sum(pauses), "this end of the task is not stored"
        for pause in (*pauses, None):
            try:
                stored = await self._store.read(task_id)
                known = stored.record.webhook if stored is not None else None
                if stored is not None and known is not None and known.id == webhook.id:
                    await self._store.amend(stored.record.changed(webhook=webhook), fence=stored.fence)
                    return
            except StoreUnavailable as error:
                reason = error.detail
            if pause is None or time.monotonic() > deadline:
                break
            await self._pause(pause)
        if pauses:
            log.warning("webhook.not_recorded", task_id=task_id, webhook_id=webhook.id, reason=reason)
