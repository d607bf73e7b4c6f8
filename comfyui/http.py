"""The one module that imports the HTTP client library; everybody else takes its names from here.

The library's successor keeps this interface, so moving to it is a change of one import line.
"""

from __future__ import annotations

from httpx import (
    URL,
    AsyncBaseTransport,
    AsyncByteStream,
    AsyncClient,
    AsyncHTTPTransport,
    ConnectError,
    ConnectTimeout,
    HTTPError,
    InvalidURL,
    Limits,
    NetworkError,
    RemoteProtocolError,
    Request,
    Response,
    Timeout,
    TimeoutException,
    TooManyRedirects,
    TransportError,
)

__all__ = [
    "URL",
    "AsyncBaseTransport",
    "AsyncByteStream",
    "AsyncClient",
    "AsyncHTTPTransport",
    "ConnectError",
    "ConnectTimeout",
    "HTTPError",
    "InvalidURL",
    "Limits",
    "NetworkError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Timeout",
    "TimeoutException",
    "TooManyRedirects",
    "TransportError",
]
