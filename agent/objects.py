"""An object store: one bucket behind Amazon's S3 interface, which R2, MinIO and Alibaba Cloud's OSS speak as well."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.errors import ObjectStoreUnavailable
from agent.object_access import Access, Credentials, Location, plan_access
from agent.settings import Settings, SettingsError

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

#: Tries of one request that fit into the time of one transfer, where the store does not answer at all.
TRIES = 3

#: Retries of a request that is refused or answered with 5xx; the pauses grow from 0.2 to at most 5 seconds.
MAX_RETRIES = 5

CONNECT_SECONDS = 5

#: Larger objects go up in parts of this size, so many of them at once.
PART_BYTES = 16 * 2**20
PARALLEL_PARTS = 4

#: Pieces in which an object is read.
CHUNK_BYTES = 256 * 1024

_PREFIX = re.compile(r"[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*")
_ERROR_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")


class ObjectMissing(Exception):
    """There is no object of this key, or no such bucket."""


class ObjectTooLarge(Exception):
    """The object is larger than the caller takes."""


class ObjectStore:
    """A bucket. `prefix` begins every key that `key` makes. Calls may run at the same time.

    Every method raises ObjectStoreUnavailable, after retries with growing pauses, at the latest when the time limit
    is over; its text holds neither credentials nor signatures.
    """

    def __init__(self, access: Access, prefix: str = "") -> None:
        self.bucket = access.bucket
        #: Calls of `put` that succeeded, and that raised.
        self.uploads = self.failed_uploads = 0
        self._access, self._prefix = access, prefix
        self._opened: S3Store | None = None
        self._opened_signer: S3Store | None = None

    def key(self, *parts: str) -> str:
        """The whole key of an object of ours. Characters that are special anywhere are replaced."""
        safe = (re.sub(r"[^A-Za-z0-9._:=-]", "_", part) for part in parts)
        return "/".join((*filter(None, (self._prefix,)), *safe))

    async def put(self, key: str, data: bytes, media_type: str, disposition: str = "") -> None:
        """Store an object whole or not at all. `disposition` is sent as Content-Disposition by whoever serves it."""
        try:
            await self._put(key, data, media_type, disposition)
        except ObjectStoreUnavailable:
            self.failed_uploads += 1
            raise
        self.uploads += 1

    async def _put(self, key: str, data: bytes, media_type: str, disposition: str) -> None:
        import obstore  # noqa: PLC0415 - a start without an object store does without it

        attributes = {"Content-Type": media_type}
        if disposition:
            attributes["Content-Disposition"] = disposition
        try:
            with _translated(self.bucket):
                async with asyncio.timeout(self._access.timeout_seconds):
                    await obstore.put_async(
                        self._store(),
                        key,
                        data,
                        attributes=attributes,
                        use_multipart=len(data) > PART_BYTES,
                        chunk_size=PART_BYTES,
                        max_concurrency=PARALLEL_PARTS,
                    )
        except ObjectMissing as error:
            raise _unavailable(self.bucket, f"it answers {error}") from None

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str | None]:
        """An object's bytes and media type. Raises ObjectMissing; ObjectTooLarge before more was read."""
        import obstore  # noqa: PLC0415

        chunks, size = [], 0
        with _translated(self.bucket):
            async with asyncio.timeout(self._access.timeout_seconds):
                found = await obstore.get_async(self._store(), key)
                if found.meta["size"] > max_bytes:
                    raise ObjectTooLarge
                async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                    size += len(chunk)
                    if size > max_bytes:
                        raise ObjectTooLarge
                    chunks.append(bytes(chunk))
        return b"".join(chunks), found.attributes.get("Content-Type")

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""
        import obstore  # noqa: PLC0415

        with suppress(ObjectMissing), _translated(self.bucket):
            async with asyncio.timeout(self._access.timeout_seconds):
                await obstore.delete_async(self._store(), key)

    async def signed_urls(self, keys: Sequence[str], seconds: int) -> list[str]:
        """URLs with which anybody may read the objects for so long, or until the credentials end, if that is sooner.
        They are secrets. Nothing is asked of the store, but a role's credentials may have to be fetched."""
        import obstore  # noqa: PLC0415

        with _translated(self.bucket):
            async with asyncio.timeout(self._access.timeout_seconds):
                return list(await obstore.sign_async(self._signer(), "GET", keys, timedelta(seconds=seconds)))

    async def signed_url(self, key: str, seconds: int) -> str:
        """As `signed_urls`, for one object."""
        return (await self.signed_urls([key], seconds))[0]

    async def origin(self) -> str:
        """Scheme and host of the signed URLs. Raises ObjectStoreUnavailable."""
        scheme, host, *_ = urlsplit(await self.signed_url(self.key("origin"), 1))
        return f"{scheme}://{host}"

    def _store(self) -> S3Store:
        if self._opened is None:
            self._opened = _open(self._access, self._access.endpoint)
        return self._opened

    def _signer(self) -> S3Store:
        if self._opened_signer is None:
            self._opened_signer = _open(self._access, self._access.public_endpoint or self._access.endpoint)
        return self._opened_signer


def open_object_store(settings: Settings, environ: Mapping[str, str] = os.environ) -> ObjectStore | None:
    """The store for outputs that the settings name; None where they name none. Raises SettingsError."""
    if settings.object_store is None:
        return None
    try:
        location = Location.parse(settings.object_store)
    except ValueError as exc:
        raise SettingsError(f"AGENT_OBJECT_STORE: {exc}") from None
    prefix = location.path.strip("/")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise SettingsError("AGENT_OBJECT_STORE: a prefix may hold A-Z a-z 0-9 . _ = - and single slashes")
    return ObjectStore(plan_access(settings, location.scheme, location.bucket, environ), prefix)


def open_bucket(
    settings: Settings, scheme: str, bucket: str, environ: Mapping[str, str] = os.environ
) -> ObjectStore:
    """Any bucket, through the same endpoint and with the same credentials. Raises SettingsError."""
    return ObjectStore(plan_access(settings, scheme, bucket, environ))


def _open(access: Access, endpoint: str | None) -> S3Store:
    from obstore.store import S3Store  # noqa: PLC0415

    seconds = access.timeout_seconds
    return S3Store(
        access.bucket,
        config={
            "virtual_hosted_style_request": access.is_virtual_hosted,
            **({"region": access.region} if access.region else {}),
            # Both: the library prefers the second, and would take it from the environment.
            **({"endpoint": endpoint, "aws_endpoint_url_s3": endpoint} if endpoint else {}),
        },
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, seconds / TRIES)),
            "timeout": timedelta(seconds=seconds / TRIES),
            # Connections of an instance that is frozen die without a sign.
            "pool_idle_timeout": timedelta(seconds=3),
        },
        retry_config={
            "max_retries": MAX_RETRIES,
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
        credential_provider=_provider(access.credentials) if access.credentials else None,
    )


def _provider(key: Credentials) -> Callable[[], S3Credential]:
    """Hands the library one key, so that it does not mix it with a token that it finds in the environment."""
    return lambda: {
        "access_key_id": key.key_id,
        "secret_access_key": key.secret,
        "token": key.token,
        "expires_at": None,
    }


@contextmanager
def _translated(bucket: str) -> Iterator[None]:
    """Turns what the library raises into our errors. Its texts are not kept: they repeat the store's answer, which may
    hold the signed request."""
    from obstore.exceptions import BaseError  # noqa: PLC0415

    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing(_code(error) or "NoSuchKey") from None
    except TimeoutError:
        raise _unavailable(bucket, "it does not answer in time") from None
    except (BaseError, OSError, ValueError) as error:
        raise _unavailable(bucket, _reason(error)) from None


def _unavailable(bucket: str, reason: str) -> ObjectStoreUnavailable:
    return ObjectStoreUnavailable(f'The object store (bucket "{bucket}") cannot be used now: {reason}.')


def _reason(error: BaseException) -> str:
    if code := _code(error):
        return f"it answers {code}"
    if status := _STATUS.search(str(error)):
        return f"it answers {status[1]}"
    return "it cannot be reached"


def _code(error: BaseException) -> str | None:
    """The word by which the store calls the fault, such as NoSuchBucket or AccessDenied."""
    found = _ERROR_CODE.search(str(error))
    return found[1] if found else None
