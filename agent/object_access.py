"""How a bucket is reached: decided from the settings and the platform's usual variables, without a connection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from agent.settings import Settings, SettingsError

#: Where Alibaba Cloud's hosts end. Its buckets are reached as BUCKET.HOST only, never as HOST/BUCKET.
ALIBABA_HOSTS = ".aliyuncs.com"

_LOCATION = re.compile(r"(s3|oss)://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)


class Location(NamedTuple):
    """What `s3://bucket/path` or `oss://bucket/path` names; the path may be empty."""

    scheme: str
    bucket: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Raises ValueError with a sentence for the caller."""
        match = _LOCATION.fullmatch(text)
        if match is None:
            raise ValueError("write it as s3://bucket/path or oss://bucket/path")
        return cls(match[1], match[2], match[3] or "")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair, and the token of one that was lent for a time."""

    key_id: str
    secret: str
    token: str | None

    def __repr__(self) -> str:
        return "Credentials(...)"


@dataclass(frozen=True, slots=True)
class Access:
    """How a bucket is reached. Without credentials they come from where programs on AWS find theirs (a role of the
    container or of the machine)."""

    bucket: str
    endpoint: str | None
    public_endpoint: str | None
    region: str | None
    is_virtual_hosted: bool
    credentials: Credentials | None
    timeout_seconds: float


def plan_access(settings: Settings, scheme: str, bucket: str, environ: Mapping[str, str]) -> Access:
    """Decide how a bucket is reached: by the settings, else by the platform's usual variables. Raises SettingsError."""
    plan = _plan_oss if scheme == "oss" else _plan_s3
    return plan(settings, bucket, environ)


def _plan_s3(settings: Settings, bucket: str, environ: Mapping[str, str]) -> Access:
    endpoint = settings.object_store_endpoint
    endpoint = endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    return Access(
        bucket=bucket,
        endpoint=endpoint,
        public_endpoint=settings.object_store_public_endpoint,
        region=settings.object_store_region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        # Amazon wants the bucket in the host's name, where a certificate does not cover a bucket with dots in its own.
        # Other stores may know their buckets by path alone.
        is_virtual_hosted=endpoint is None
        and settings.object_store_public_endpoint is None
        and "." not in bucket,
        credentials=_credentials(
            settings, environ, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
        ),
        timeout_seconds=settings.object_store_timeout_seconds,
    )


def _plan_oss(settings: Settings, bucket: str, environ: Mapping[str, str]) -> Access:
    region = settings.object_store_region or environ.get("FC_REGION")
    if not region:
        raise SettingsError(
            "AGENT_OBJECT_STORE_REGION: an oss:// bucket needs its region, such as cn-hangzhou"
        )
    region = region.removeprefix("oss-")
    credentials = _credentials(
        settings,
        environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",
    )
    if credentials is None:
        raise SettingsError(
            "AGENT_OBJECT_STORE_KEY_ID: an oss:// bucket needs a key, here or in ALIBABA_CLOUD_ACCESS_KEY_ID"
        )
    # The internal endpoint answers only inside Alibaba Cloud, and only in the bucket's own region.
    is_inside = environ.get("FC_REGION") == region
    public = f"https://s3.oss-{region}.aliyuncs.com"
    usual = f"https://s3.oss-{region}-internal.aliyuncs.com" if is_inside else public
    endpoint = settings.object_store_endpoint or usual
    return Access(
        bucket=bucket,
        endpoint=_host_bucket(endpoint, bucket),
        public_endpoint=_host_bucket(settings.object_store_public_endpoint or public, bucket),
        region=region,
        is_virtual_hosted=True,
        credentials=credentials,
        timeout_seconds=settings.object_store_timeout_seconds,
    )


def _host_bucket(endpoint: str, bucket: str) -> str:
    """The endpoint with the bucket in its host's name. A host that is not Alibaba Cloud's is a domain of the user's
    that is bound to the bucket, and stays as it is."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if not host.endswith(ALIBABA_HOSTS) or host.startswith(f"{bucket}."):
        return endpoint
    return parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl()


def _credentials(
    settings: Settings, environ: Mapping[str, str], key_id: str, secret: str, token: str
) -> Credentials | None:
    """The key of the settings, else that of the environment: a pair and its token are never taken from two places."""
    ours = (settings.object_store_key_id, settings.object_store_key_secret, settings.object_store_token)
    if any(ours):
        given = [value.get_secret_value() if value else "" for value in ours]
        if not given[0] or not given[1]:
            raise SettingsError(
                "AGENT_OBJECT_STORE_KEY_ID and AGENT_OBJECT_STORE_KEY_SECRET belong together: set both or none"
            )
        return Credentials(given[0], given[1], given[2] or None)
    if environ.get(key_id) and environ.get(secret):
        return Credentials(environ[key_id], environ[secret], environ.get(token) or None)
    return None
