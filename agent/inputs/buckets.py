"""Input files that are named by bucket and key, `s3://bucket/key` or `oss://bucket/key`, from buckets that are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import AgentError, InputForbidden, InputNotFetched, InputTooLarge, ObjectStoreUnavailable
from agent.inputs.fetched import Fetched
from agent.object_access import Location
from agent.objects import ObjectMissing, ObjectStore, ObjectTooLarge
from agent.settings import SettingsError

if TYPE_CHECKING:
    from agent.inputs.fetch import Fetcher

SCHEMES = ("s3", "oss")

#: From scheme and bucket to the bucket. Raises SettingsError where the settings do not suffice to reach it.
Open = Callable[[str, str], ObjectStore]


@dataclass(frozen=True, slots=True)
class OpenBucket:
    """A bucket, or the part of it under a prefix, whose objects callers may use (AGENT_INPUT_BUCKETS)."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, entry: str) -> OpenBucket:
        """Read `bucket` or `bucket/prefix`. Raises ValueError with a sentence for the operator."""
        try:
            location = Location.parse(f"s3://{entry}")
        except ValueError:
            raise ValueError(
                f"AGENT_INPUT_BUCKETS: {entry!r} is no bucket; write bucket or bucket/prefix"
            ) from None
        return cls(location.bucket, location.path.strip("/"))

    def covers(self, location: Location) -> bool:
        is_within = not self.prefix or location.path.startswith(f"{self.prefix}/")
        return location.bucket == self.bucket and is_within


class BucketReader:
    """Reads inputs from open buckets. Calls may run at the same time."""

    def __init__(
        self, entries: Iterable[str], open_bucket: Open, *, max_bytes: int, timeout_seconds: float
    ) -> None:
        """Raises ValueError for an entry that is none."""
        self._open_buckets = tuple(OpenBucket.parse(entry) for entry in entries)
        self._open, self._max_bytes, self._timeout_seconds = open_bucket, max_bytes, timeout_seconds
        self._stores: dict[tuple[str, str], ObjectStore] = {}

    async def fetch(self, reference: str) -> Fetched:
        """Raises InputForbidden for a bucket that is not open, InputTooLarge, and InputNotFetched for all else; each
        has the fact `url`."""
        try:
            return await self._fetch(reference)
        except AgentError as error:
            raise error.with_facts(url=reference[:300]) from None

    async def _fetch(self, reference: str) -> Fetched:
        try:
            location = Location.parse(reference)
        except ValueError as exc:
            raise InputNotFetched(f"The reference to an object is malformed: {exc}.") from None
        if not location.path:
            raise InputNotFetched(f'The reference names bucket "{location.bucket}", but no object in it.')
        if not any(entry.covers(location) for entry in self._open_buckets):
            raise InputForbidden(
                f'Inputs may not come from here in bucket "{location.bucket}". AGENT_INPUT_BUCKETS opens buckets.'
            )
        store = self._store(location)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                data, media_type = await store.get(location.path, self._max_bytes)
        except ObjectMissing as exc:
            raise InputNotFetched(f"The object store has no such object ({exc}).") from None
        except ObjectTooLarge:
            raise InputTooLarge(
                f"The input file is larger than {self._max_bytes} bytes. "
                "Send a smaller one or raise AGENT_MAX_INPUT_BYTES.",
                limit=self._max_bytes,
            ) from None
        except ObjectStoreUnavailable as exc:
            raise InputNotFetched(exc.detail) from None
        except TimeoutError:
            raise InputNotFetched(
                f"The object store took longer than {self._timeout_seconds:g} seconds."
            ) from None
        name = location.path.rpartition("/")[2][-255:]
        return Fetched(data, media_type, name if "." in name else None)

    def _store(self, location: Location) -> ObjectStore:
        key = (location.scheme, location.bucket)
        if key not in self._stores:
            try:
                self._stores[key] = self._open(*key)
            except SettingsError as exc:
                raise InputNotFetched(
                    f"This server is not set up for {location.scheme}:// inputs. {exc}."
                ) from None
        return self._stores[key]


class Sources:
    """Fetches an input from where its reference says: the web or a bucket."""

    def __init__(self, web: Callable[[], Fetcher], buckets: BucketReader) -> None:
        """`web` opens what reads from the web, when the first input comes from there."""
        self._web, self._buckets = web, buckets

    async def fetch(self, reference: str) -> Fetched:
        """Raises InputForbidden, InputTooLarge and InputNotFetched."""
        scheme = reference.partition(":")[0].lower()
        return await (self._buckets if scheme in SCHEMES else self._web()).fetch(reference)
