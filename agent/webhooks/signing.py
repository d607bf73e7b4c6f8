"""Signatures by which a receiver knows that a message is ours: HMAC-SHA256, version `v1` of Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

#: Begins every secret in its written form.
PREFIX = "whsec_"

#: Bytes of a secret; the specification names both limits.
SHORTEST, LONGEST = 24, 64


def read_secret(text: str) -> bytes:
    """The key that a secret stands for. Raises ValueError with a sentence that does not show the secret."""
    if not text.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX}")
    encoded = text.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} is not base64") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(
            f"a secret has {SHORTEST} to {LONGEST} random bytes, this one has {len(key)}: "
            f'echo "{PREFIX}$(openssl rand -base64 32)" makes one'
        )
    return key


def message_headers(keys: Sequence[bytes], message_id: str, sent_at: int, body: bytes) -> dict[str, str]:
    """The headers of one try: the id is the message's, `sent_at` (seconds since the epoch) the try's.

    Each key signs, so that receivers may change theirs one by one. Without a key there is no signature.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(sent_at)}
    if keys:
        signed = f"{message_id}.{sent_at}.".encode() + body
        headers["webhook-signature"] = " ".join(_signature(key, signed) for key in keys)
    return headers


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
