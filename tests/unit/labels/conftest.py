"""What the tests of labels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.labels.credentials import Credentials
from tests.certificates import SigningFiles, make_signer
from tests.exif_tool import ExifTool, exif_tool


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExifTool]:
    with exif_tool(tmp_path_factory.mktemp("exiftool")) as found:
        yield found


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> SigningFiles:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def credentials(signer: SigningFiles) -> Credentials:
    return Credentials(str(signer.certificate), str(signer.key), "es256")
