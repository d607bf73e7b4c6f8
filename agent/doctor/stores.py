"""Checks of the task store and of the object store."""

from __future__ import annotations

import asyncio
import time
import uuid

from agent.build import build_store
from agent.doctor.finding import Finding, advice, ok, problem
from agent.errors import ObjectStoreUnavailable, StoreUnavailable
from agent.objects import ObjectMissing, ObjectStore, open_object_store
from agent.settings import Settings, SettingsError

#: Beyond this, times in records of several instances contradict each other.
ODD_SKEW_SECONDS = 5

#: Receivers refuse webhooks, and object stores requests, that are minutes off.
WRONG_SKEW_SECONDS = 120

#: Of one try; the settings' own patience is for tasks.
OBJECT_SECONDS = 15


async def check_store(settings: Settings) -> list[Finding]:
    """Whether the task store answers, and would keep what it is given."""
    if settings.redis_url is None and settings.store_dir is None:
        text = "REDIS_URL and AGENT_STORE_DIR are not set: tasks are known to this process alone, and end with it."
        return [advice("task store", text, "Set one of them where more than one instance runs.")]
    try:
        store = build_store(settings)
    except SettingsError as exc:
        return [problem("task store", str(exc), "Correct the setting: the service will not start.")]
    try:
        await store.ping()
    except StoreUnavailable as error:
        remedy = "Until then only callers who wait for their pictures get any."
        if settings.redis_url:
            remedy = f"Start Redis, or correct REDIS_URL. {remedy}"
        cause = str(error.__cause__ or "")
        text = error.detail if cause in error.detail else f"{error.detail} {cause}"
        return [problem("task store", text, remedy)]
    finally:
        await store.close()
    if settings.redis_url is None:
        return [ok("task store", f"The folder {settings.store_dir} can be used.")]
    return await _check_redis(settings)


async def _check_redis(settings: Settings) -> list[Finding]:
    from redis.asyncio import Redis  # noqa: PLC0415 - where it is used at all
    from redis.exceptions import RedisError  # noqa: PLC0415

    url = settings.redis_url.get_secret_value() if settings.redis_url else ""
    timeout = settings.redis_timeout_seconds
    async with Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout) as redis:
        try:
            asked = time.time()
            seconds, microseconds = await redis.time()
            skew = seconds + microseconds / 1e6 - (asked + time.time()) / 2
        except (RedisError, OSError, ValueError):
            return [ok("task store", "Redis answers, but does not tell its time: clocks were not compared.")]
        findings = [ok("task store", "Redis answers."), judge_clock(skew)]
        try:
            info = await redis.info()
        except (RedisError, OSError):
            return findings  # many providers forbid it
    if info.get("role") not in (None, "master"):
        text = "REDIS_URL names a replica, which takes no writes."
        findings[0] = problem("task store", text, "Name the primary in REDIS_URL.")
    elif str(info.get("maxmemory_policy", "")).startswith("allkeys"):
        text = f"Redis throws keys away when it is full ({info['maxmemory_policy']}): tasks may vanish."
        findings[0] = advice("task store", text, "Set maxmemory-policy to volatile-ttl or noeviction.")
    return findings


def judge_clock(skew: float) -> Finding:
    """What it means that Redis is so many seconds before this machine."""
    text = f"Redis and this machine differ by {abs(skew):.1f} s."
    if abs(skew) >= WRONG_SKEW_SECONDS:
        return problem(
            "clock", text, "Set the clock of this machine: receivers refuse webhooks that are minutes off."
        )
    if abs(skew) >= ODD_SKEW_SECONDS:
        return advice("clock", text, "Let both machines keep the time by NTP.")
    return ok("clock", text)


async def check_objects(settings: Settings, *, write: bool) -> list[Finding]:
    """Whether the object store answers; with `write`, whether it takes, gives and removes an object."""
    try:
        store = open_object_store(
            settings.model_copy(update={"object_store_timeout_seconds": OBJECT_SECONDS})
        )
    except SettingsError:
        return []  # named by the check of the settings
    if store is None:
        return []
    about, remedy = (
        "object store",
        "See to the bucket, its address, region and key: AGENT_OBJECT_STORE and others.",
    )
    try:
        await (_write(store) if write else _read(store))
    except (ObjectMissing, ObjectStoreUnavailable) as error:
        detail = error.detail if isinstance(error, ObjectStoreUnavailable) else f"it answers {error}"
        if not write and "AccessDenied" in detail:
            text = f'Bucket "{store.bucket}" answers, and does not say whether an object is there.'
            return [advice(about, text, "That may be right for its key; --write tries an object.")]
        return [problem(about, f'Bucket "{store.bucket}": {detail}', remedy)]
    done = "takes, gives and removes objects" if write else "answers; --write tries an object"
    return [ok(about, f'Bucket "{store.bucket}" {done}.')]


async def _read(store: ObjectStore) -> None:
    try:
        await store.get(store.key("doctor", "no-such-object"), 1)
    except ObjectMissing as missing:
        if str(missing) == "NoSuchBucket":
            raise


async def _write(store: ObjectStore) -> None:
    key, data = store.key("doctor", uuid.uuid4().hex), b"comfyui-agent doctor"
    await store.put(key, data, "text/plain")
    try:
        found, _ = await store.get(key, len(data))
    finally:
        await asyncio.shield(store.delete(key))
    if found != data:
        raise ObjectStoreUnavailable("It gave back other bytes than it was given.")
