"""How a bucket is reached: decided from the settings and the platform's variables, without a connection."""

from __future__ import annotations

from typing import Any

import pytest

from agent.object_access import Access, Location, plan_access
from agent.objects import open_bucket, open_object_store
from agent.settings import SettingsError, load_settings
from tests.integration.agent.service import settings_of

KEYS = {"object_store_key_id": "id", "object_store_key_secret": "secret"}
ON_FC = {
    "FC_REGION": "cn-hangzhou",
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "fc-id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "fc-secret",
    "ALIBABA_CLOUD_SECURITY_TOKEN": "fc-token",
}


def plan(scheme: str, environ: dict[str, str] | None = None, **settings: Any) -> Access:
    return plan_access(settings_of(**settings), scheme, "pics", environ or {})


def test_amazon_is_reached_by_the_buckets_own_host() -> None:
    access = plan("s3", {"AWS_REGION": "eu-west-1"}, **KEYS)
    assert (access.endpoint, access.is_virtual_hosted, access.region) == (None, True, "eu-west-1")


def test_another_store_is_reached_by_path() -> None:
    access = plan("s3", object_store_endpoint="http://minio:9000", **KEYS)
    assert (access.endpoint, access.is_virtual_hosted) == ("http://minio:9000", False)
    usual = plan("s3", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, **KEYS)
    assert usual.endpoint == "http://b"


def test_oss_on_function_compute_writes_inside_and_signs_for_outside() -> None:
    access = plan("oss", ON_FC)
    assert access.endpoint == "https://pics.s3.oss-cn-hangzhou-internal.aliyuncs.com"
    assert access.public_endpoint == "https://pics.s3.oss-cn-hangzhou.aliyuncs.com"
    assert (access.region, access.is_virtual_hosted) == ("cn-hangzhou", True)
    assert access.credentials is not None
    assert (access.credentials.key_id, access.credentials.token) == ("fc-id", "fc-token")


@pytest.mark.parametrize("region", ["cn-beijing", "oss-cn-beijing"])
def test_oss_of_another_region_is_reached_from_outside(region: str) -> None:
    access = plan("oss", ON_FC, object_store_region=region)
    assert access.endpoint == access.public_endpoint == "https://pics.s3.oss-cn-beijing.aliyuncs.com"


def test_a_domain_of_ones_own_is_bound_to_the_bucket_already() -> None:
    access = plan("oss", ON_FC, object_store_public_endpoint="https://pics.example.com")
    assert access.public_endpoint == "https://pics.example.com"


async def test_signed_oss_urls_are_for_the_public_host() -> None:
    store = open_object_store(settings_of(object_store="oss://pics/out"), ON_FC)
    assert store is not None
    url = await store.signed_url(store.key("a b.png"), 60)
    assert url.startswith("https://pics.s3.oss-cn-hangzhou.aliyuncs.com/out/a_b.png?X-Amz-Algorithm=")
    assert "cn-hangzhou%2Fs3%2Faws4_request" in url


def test_a_key_of_the_settings_takes_no_token_from_the_environment() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_SESSION_TOKEN": "z"}
    ours = plan("s3", environ, **KEYS).credentials
    theirs = plan("s3", environ).credentials
    assert ours is not None
    assert theirs is not None
    assert (ours.key_id, ours.token) == ("id", None)
    assert (theirs.key_id, theirs.token) == ("x", "z")
    assert plan("s3").credentials is None


def test_what_is_missing_is_said_at_start() -> None:
    with pytest.raises(SettingsError, match="AGENT_OBJECT_STORE_REGION"):
        plan("oss", **KEYS)
    with pytest.raises(SettingsError, match="AGENT_OBJECT_STORE_KEY_ID"):
        plan("oss", {"FC_REGION": "cn-hangzhou"})
    with pytest.raises(SettingsError, match="belong together"):
        plan("s3", object_store_key_id="id")
    with pytest.raises(SettingsError, match="AGENT_OUTPUTS=url"):
        load_settings({}, outputs="url")
    with pytest.raises(SettingsError, match="AGENT_SIGNED_URL_SECONDS"):
        load_settings({}, signed_url_seconds=604_801)


@pytest.mark.parametrize(
    "text", ["bucket", "http://bucket/x", "s3://", "s3://B/x", "s3://bucket/a//b", "s3://bucket/ü", "s3://-b"]
)
def test_a_store_that_is_none_is_refused_with_the_name_of_the_setting(text: str) -> None:
    with pytest.raises(SettingsError, match="AGENT_OBJECT_STORE"):
        open_object_store(settings_of(object_store=text, **KEYS), {})


def test_no_store_is_no_error() -> None:
    assert open_object_store(settings_of(), {}) is None


def test_locations_are_bucket_and_path() -> None:
    assert Location.parse("oss://pics/a/b?c.png") == ("oss", "pics", "a/b?c.png")
    assert Location.parse("s3://pics") == ("s3", "pics", "")


def test_credentials_show_nowhere() -> None:
    settings = settings_of(
        object_store="s3://pics", object_store_key_id="id", object_store_key_secret="S3CR3T"
    )
    store = open_bucket(settings, "s3", "pics", {})
    access = plan_access(settings, "s3", "pics", {})
    assert "S3CR3T" not in repr(settings) + repr(access) + repr(store)
