"""What we sign, the specification's own library verifies; what was tampered with, it refuses."""

from __future__ import annotations

import base64
import secrets
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from agent.webhooks.signing import message_headers, read_secret

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = '{"type":"task.succeeded","data":{"title":"ümlaut 名"}}'.encode()


def signed(*texts: str, at: float | None = None, body: bytes = BODY) -> dict[str, str]:
    keys = [read_secret(text) for text in texts]
    return message_headers(keys, "msg_1", int(time.time() if at is None else at), body)


def fresh(size: int = 32) -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(size)).decode()


@pytest.mark.parametrize("size", [24, 25, 32, 64])
@pytest.mark.parametrize("is_padded", [True, False])
def test_signature_is_verified_by_the_specifications_library(size: int, is_padded: bool) -> None:
    secret = fresh(size) if is_padded else fresh(size).rstrip("=")
    assert Webhook(secret).verify(BODY, signed(secret))["type"] == "task.succeeded"


def test_signature_is_that_of_the_specifications_library_and_of_its_example() -> None:
    # The example of the libraries' README.
    secret, message_id, at = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
    )
    headers = message_headers([read_secret(secret)], message_id, at, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": message_id,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_changed_header_is_refused(name: str) -> None:
    headers = signed(SECRET)
    other = message_headers([read_secret(fresh())], "msg_2", int(time.time()) - 1, BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, {**headers, name: other[name]})
    del headers[name]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, headers)


def test_changed_body_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY.replace(b"succeeded", b"cancelled"), signed(SECRET))


@pytest.mark.parametrize("seconds", [-400, 400])
def test_message_that_is_too_old_or_too_new_is_refused(seconds: int) -> None:
    with pytest.raises(WebhookVerificationError, match="too"):
        Webhook(SECRET).verify(BODY, signed(SECRET, at=time.time() + seconds))


def test_every_secret_signs_so_that_receivers_can_change_theirs_one_by_one() -> None:
    old, new = fresh(), fresh()
    headers = signed(new, old)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(fresh()).verify(BODY, headers)


def test_without_a_secret_nothing_pretends_to_be_signed() -> None:
    assert signed().keys() == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsec_", "24 to 64"),
        ("whsec_====", "24 to 64"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjU PD8ILPZIo2LaLaSw", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwü", "not base64"),
    ],
)
def test_secret_that_is_none_is_refused_without_being_shown(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        read_secret(text)
    assert len(text) < 12 or text.removeprefix("whsec_") not in str(refused.value)
