"""Agents that label, all on one simulator, as in the tests of the object store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.certificates import SigningFiles, make_signer
from tests.exif_tool import ExifTool, exif_tool
from tests.integration.objects.conftest import engine, make_agent

__all__ = ["engine", "make_agent"]


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExifTool]:
    with exif_tool(tmp_path_factory.mktemp("exiftool")) as found:
        yield found


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> SigningFiles:
    return make_signer(tmp_path_factory.mktemp("signer"))
