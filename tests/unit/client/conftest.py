from __future__ import annotations

import io

import pytest
from PIL import Image


@pytest.fixture
def picture_bytes():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "PNG")
    return buffer.getvalue()
