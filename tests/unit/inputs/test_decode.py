"""Base64 and data URIs: everything callers really send, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputTooLarge, InvalidInput
from agent.inputs.decode import decode_base64, looks_like_base64, parse_data_uri

LIMIT = 2**20
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xff\xff?\0\5\xfe\2\xfe"
).decode()


@given(
    st.binary(min_size=1, max_size=400),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "\n", "\r\n", " ", "\t"]),
)
def test_every_usual_spelling_decodes_to_the_same_bytes(
    data: bytes, url_safe: bool, padded: bool, wrap: str
) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    if not padded:
        text = text.rstrip("=")
    lines = [text[i : i + 76] for i in range(0, len(text), 76)]
    assert decode_base64(wrap + wrap.join(lines) + wrap, LIMIT) == data


@given(st.text(max_size=200) | st.text(alphabet="AZaz09+/-_= \n", max_size=60))
def test_arbitrary_text_decodes_or_is_invalid_input(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert decode_base64(text, LIMIT)


@given(st.text(max_size=200) | st.text(max_size=80).map(lambda rest: "data:" + rest))
def test_arbitrary_data_uri_parses_or_is_invalid_input(text: str) -> None:
    try:
        media_type, data = parse_data_uri(text, LIMIT)
    except InvalidInput:
        return
    assert isinstance(data, bytes)
    assert media_type == media_type.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "####aGk=",
        "aGk=#",
        "aGk=aGk=",
        "a",
        "aGkxx",
        "aGk==",
        "a===",
        "====",
        "=aGk",
        "aG+k_A==",
        "aGk\0",
        "aGké",
        "\uff41\uff27\uff4b\uff1d",
        "aG.k",
    ],
)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        decode_base64(text, LIMIT)


def test_size_is_checked_before_decoding_and_exactly() -> None:
    text = base64.b64encode(bytes(1000)).decode()
    assert len(decode_base64(text, 1000)) == 1000
    with pytest.raises(InputTooLarge) as caught:
        decode_base64(text, 999)
    assert caught.value.facts == {"limit": 999}


def test_white_space_does_not_count_towards_the_size() -> None:
    assert decode_base64("aGk=" + "\n" * 1000, 2) == b"hi"


def test_error_shows_the_beginning_and_the_length_only() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_base64("secret-picture-that-nobody-should-see!" * 50, LIMIT)
    assert "'secret-picture-t'" in caught.value.detail
    assert "1900 characters" in caught.value.detail
    assert "nobody" not in caught.value.detail


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("data:image/png;base64,aGk=", ("image/png", b"hi")),
        ("DATA:Image/PNG;Base64,aGk", ("image/png", b"hi")),
        ("data:image/png;name=a.png;base64,aG\r\nk=", ("image/png", b"hi")),
        ("data:image/png;base64,aGk%3D", ("image/png", b"hi")),
        ("data:;base64,%2F%2b8=", ("text/plain", b"\xff\xef")),
        ("data:,hi", ("text/plain", b"hi")),
        ("data:text/plain;charset=utf-8,h%C3%A9%20llo,%00", ("text/plain", b"h\xc3\xa9 llo,\0")),
        ("  data:text/csv,a,b", ("text/csv", b"a,b")),
        ("data:text/plain,", ("text/plain", b"")),
    ],
)
def test_data_uri_forms(uri: str, expected: tuple[str, bytes]) -> None:
    assert parse_data_uri(uri, LIMIT) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:image/png;base64",
        "image/png,hi",
        "data:,%zz",
        "data:,%4",
        "data:,é",
        "data:;base64,####",
    ],
)
def test_malformed_data_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        parse_data_uri(uri, LIMIT)


@given(st.binary(max_size=300))
def test_percent_encoded_data_round_trips(data: bytes) -> None:
    assert parse_data_uri("data:," + urllib.parse.quote_from_bytes(data), LIMIT)[1] == data


def test_long_percent_encoded_data_survives_the_steps() -> None:
    """The decoder works in slices; an escape that straddles two of them must not be torn."""
    for shift in range(4):
        data = b"x" * shift + bytes(range(256)) * 1000
        assert parse_data_uri("data:," + urllib.parse.quote_from_bytes(data), LIMIT)[1] == data


def test_data_uri_over_the_limit_is_too_large() -> None:
    for uri in ("data:,%41%41%41", "data:;base64,QUFB"):
        assert parse_data_uri(uri, 3)[1] == b"AAA"
        with pytest.raises(InputTooLarge):
            parse_data_uri(uri, 2)


@pytest.mark.parametrize(
    "name",
    [
        "example.png",
        "clipspace/clipspace-mask-1234567.png [input]",
        "pasted/image (1).png",
        "photo",
        "",
        "deadbeef",
        "some/very/long/path/that/goes/on/and/on/and/on/until/it/is/over/sixty/four/picture.png",
        "图片.png",
        "a" * 70 + ".png",
    ],
)
def test_file_names_do_not_look_like_base64(name: str) -> None:
    assert not looks_like_base64(name)


@pytest.mark.parametrize(
    "text",
    [
        PIXEL,
        PIXEL[:24],
        PIXEL.replace("+", "-").replace("/", "_"),
        "\n".join(PIXEL[i : i + 20] for i in range(0, len(PIXEL), 20)),
        "#" * 2000,
    ],
)
def test_base64_and_texts_too_long_for_a_name_look_like_base64(text: str) -> None:
    assert looks_like_base64(text)


def test_telling_and_decoding_twenty_megabytes_is_quick() -> None:
    text = base64.b64encode(bytes(15 * 2**20)).decode()
    started = time.process_time()  # others may be busy
    assert looks_like_base64(text)
    assert time.process_time() - started < 0.1
    assert len(decode_base64(text, 2**30)) == 15 * 2**20
    assert time.process_time() - started < 1
