"""Settings of the object store."""

from __future__ import annotations

from pydantic import Field, SecretStr

from agent.settings_types import HttpUrl, SettingsGroup


class ObjectStoreSettings(SettingsGroup):
    """Where files may be kept, and how that place is reached."""

    object_store: str | None = Field(
        None,
        description="Where outputs may be kept: s3://bucket/prefix (also R2, MinIO) or oss://bucket/prefix.",
    )
    object_store_endpoint: HttpUrl | None = Field(
        None,
        description="Address of the object store. Default: Amazon's, or OSS of the region, inside it on FC.",
    )
    object_store_public_endpoint: HttpUrl | None = Field(
        None, description="Address for signed URLs where callers reach the store by another one than we do."
    )
    object_store_region: str | None = Field(
        None, description="Region of the buckets; R2's is auto. Default: AWS_REGION, for OSS FC_REGION."
    )
    object_store_key_id: SecretStr | None = Field(
        None, description="Access key. Default: AWS_ACCESS_KEY_ID, for OSS ALIBABA_CLOUD_ACCESS_KEY_ID."
    )
    object_store_key_secret: SecretStr | None = Field(
        None, description="Its secret. Default: AWS_SECRET_ACCESS_KEY or ALIBABA_CLOUD_ACCESS_KEY_SECRET."
    )
    object_store_token: SecretStr | None = Field(
        None,
        description="Token of a key that is lent. Default: AWS_SESSION_TOKEN or ALIBABA_CLOUD_SECURITY_TOKEN.",
    )
    object_store_timeout_seconds: float = Field(
        60, gt=0, description="How long one transfer to or from the object store may take, retries included."
    )
    signed_url_seconds: int = Field(
        3600, ge=1, le=604_800, description="How long a signed URL of an output can be used; at most a week."
    )
