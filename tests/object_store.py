"""A real S3 server on a loopback port, in this process, and a look at what lies in it."""

from __future__ import annotations

import logging
import re
import urllib.error
import urllib.request
import uuid
from typing import Any
from urllib.parse import quote

from moto.server import ThreadedMotoServer

KEY_ID = "TESTKEYID"
KEY_SECRET = "test-key-secret"


class S3Server:
    """Buckets are made when they are first asked for. Signatures are not checked, but their time limit is."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    def start(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self.url = f"http://{self.host}:{self.port}"

    def stop(self) -> None:
        self._server.stop()

    def bucket(self) -> Bucket:
        """A new, empty bucket."""
        made = Bucket(f"bucket-{uuid.uuid4().hex[:12]}", self)
        call(f"{self.url}/{made.name}", "PUT")
        return made


class Bucket:
    """One bucket, seen from outside the agent."""

    def __init__(self, name: str, server: S3Server) -> None:
        self.name, self.server = name, server

    def settings(self, prefix: str = "", **more: Any) -> dict[str, Any]:
        """What an agent needs to keep its outputs here."""
        return {
            "object_store": f"s3://{self.name}/{prefix}",
            "object_store_endpoint": self.server.url,
            "object_store_region": "us-east-1",
            "object_store_key_id": KEY_ID,
            "object_store_key_secret": KEY_SECRET,
            "object_store_timeout_seconds": 20,
            **more,
        }

    def put(self, key: str, data: bytes) -> None:
        call(f"{self.server.url}/{self.name}/{quote(key)}", "PUT", data)

    def get(self, key: str) -> bytes:
        return call(f"{self.server.url}/{self.name}/{quote(key)}")[1]

    def keys(self) -> list[str]:
        """All keys, sorted."""
        _, body = call(f"{self.server.url}/{self.name}?list-type=2")
        return sorted(re.findall(r"<Key>([^<]+)</Key>", body.decode()))


def call(url: str, method: str = "GET", data: bytes | None = None) -> tuple[Any, bytes]:
    """Headers and body of a 2xx. Raises urllib's HTTPError for any other."""
    # Without a type urllib would call it a form, and the server would read it as one.
    named = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=data, headers=named, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.headers, response.read()


def status_of(url: str) -> int:
    try:
        call(url)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code
    return 200
