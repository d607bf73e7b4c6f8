"""What the classifiers of Amazon have in common: one client each, made at the first question, and its threads.

boto3 is the extra `aws`; it blocks. Credentials and region are found as all of Amazon's tools find them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from agent.safety.classifiers.classifier import ClassifierDown

T = TypeVar("T")

#: Questions of all tasks that are on their way at the same time.
PARALLEL = 4

#: Error codes after which the same question may be answered, whatever their status.
PASSING = frozenset(
    {
        "InternalServerError",
        "InternalServerException",
        "ProvisionedThroughputExceededException",
        "RequestTimeout",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)


class AmazonService:
    """One of Amazon's services, by its name in boto3. `seconds` bounds each connection and each answer."""

    def __init__(self, name: str, *, region: str | None, endpoint: str | None, seconds: float) -> None:
        self._name, self._region, self._endpoint, self._seconds = name, region, endpoint, seconds
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix=name)
        self._lock = asyncio.Lock()
        self._client: Any = None

    async def prepare(self) -> None:
        """Make the client, which takes half a second. Raises ClassifierDown."""
        async with self._lock:
            if self._client is None:
                self._client = await self._in_thread(self._open)

    async def ask(self, question: Callable[[Any], T]) -> T:
        """What `question` makes of the client, in a thread. Raises ClassifierDown."""
        await self.prepare()
        return await self._in_thread(partial(self._ask, question))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _open(self) -> Any:
        import boto3  # noqa: PLC0415 - an extra, and half a second
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        config = Config(
            connect_timeout=self._seconds,
            read_timeout=self._seconds,
            retries={"total_max_attempts": 1},  # the review asks again itself
            max_pool_connections=PARALLEL,
        )
        try:
            return boto3.session.Session().client(
                self._name, region_name=self._region, endpoint_url=self._endpoint, config=config
            )
        except (BotoCoreError, ValueError) as exc:
            raise ClassifierDown(
                f"its client cannot be made ({type(exc).__name__})", is_lasting=True
            ) from None

    def _ask(self, question: Callable[[Any], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return question(self._client)
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))[:100]
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            is_lasting = code not in PASSING and status < 500
            raise ClassifierDown(f"it answered {code}", is_lasting=is_lasting) from None
        except (BotoCoreError, KeyError, TypeError, ValueError) as exc:
            raise ClassifierDown(f"it cannot be asked ({type(exc).__name__})") from None
