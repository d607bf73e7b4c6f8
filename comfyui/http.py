"""The one module that imports the HTTP client library; everybody else takes its names from here.

The library's successor keeps this interface, so moving to it is a change of one import line.
"""

from __future__ import annotations

from httpx import (
    AsyncBaseTransport,
    AsyncByteStream,
    AsyncClient,
    AsyncHTTPTransport,
    HTTPError,
    InvalidURL,
    Limits,
    Request,
    Response,
    Timeout,
    TimeoutException,
    TooManyRedirects,
)

__all__ = [
    "AsyncBaseTransport",
    "AsyncByteStream",
    "AsyncClient",
    "AsyncHTTPTransport",
    "HTTPError",
    "InvalidURL",
    "Limits",
    "Request",
    "Response",
    "Timeout",
    "TimeoutException",
    "TooManyRedirects",
]
