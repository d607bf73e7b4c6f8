"""Whatever an input URL looks like, fetching it ends in one of our own errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputForbidden, InputNotFetched
from agent.inputs.addresses import AllowList
from agent.inputs.fetch import Fetcher, _filename
from comfyui.http import URL

URLS = st.text(max_size=60) | st.text(max_size=40).map(lambda rest: "http://" + rest)


async def nobody(host: str, port: int) -> Sequence[str]:
    raise OSError(-2, "Name or service not known")


async def fetch_once(url: str) -> None:
    without_authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    fetcher = Fetcher(AllowList(), max_bytes=1, timeout_seconds=5, resolve=nobody, tls=without_authorities)
    try:
        await fetcher.fetch(url)
    finally:
        await fetcher.close()


@given(URLS)
def test_arbitrary_url_is_refused_with_an_input_error(url: str) -> None:
    with pytest.raises((InputNotFetched, InputForbidden)):
        asyncio.run(fetch_once(url))


@given(st.text(max_size=80) | st.text(max_size=60).map(lambda rest: "attachment; filename" + rest))
def test_arbitrary_disposition_gives_a_plain_name_or_none(disposition: str) -> None:
    name = _filename(disposition, URL("http://a.test/x"))
    assert name is None or ("." in name and not set(name) & {"/", "\\"} and len(name) <= 255)
