"""Pictures that facades decode themselves: strangers send them, so they may be anything."""

from __future__ import annotations

import base64
import io
import struct

import pytest
from PIL import Image

from agent.api.facades.automatic1111_input import Change, check_call
from agent.api.facades.automatic1111_pictures import prepare_pictures
from agent.api.facades.decoding import MOST_PIXELS, decode_picture
from agent.errors import InvalidInput, InvalidParameter

#: Pillow would hand it to Ghostscript, which runs it.
POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(/tmp/x) (w) file closefile\n%%EOF\n"
)


def encode(size: tuple[int, int], kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("1", size).save(out, kind)
    return out.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def hidden_in_an_icon(picture: bytes) -> bytes:
    """An icon that says 16 x 16 of a larger picture."""
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


@pytest.mark.parametrize(
    "data", [POSTSCRIPT, hidden_in_an_icon(encode((64, 64))), encode((8, 8), "PPM"), b"", b"words"]
)
def test_only_formats_that_inputs_may_have_are_decoded(data: bytes) -> None:
    with pytest.raises(InvalidInput, match='Parameter "mask": ') as caught:
        decode_picture(text(data), "mask")
    assert caught.value.facts["parameter"] == "mask"


def test_a_broken_picture_is_refused_without_words_of_the_machinery() -> None:
    cut = encode((64, 64), "GIF")[:-40]
    for data in (cut, encode((64, 64))[:-20]):
        with pytest.raises(InvalidInput) as caught:
            decode_picture(text(data), "mask")
        assert "object at 0x" not in caught.value.detail


def test_pictures_of_too_many_pixels_are_not_decoded() -> None:
    side = int(MOST_PIXELS**0.5)
    with pytest.raises(InvalidParameter, match=f"more than {MOST_PIXELS} pixels"):
        decode_picture(text(encode((side, side + 1))), "mask")


def test_base64_may_be_wrapped_unpadded_or_a_data_uri() -> None:
    given = text(encode((9, 5)))
    lines = "\n".join(given[at : at + 20] for at in range(0, len(given), 20))
    for way in (given, lines, given.rstrip("="), f"data:image/png;base64,{given}", f"data:;base64, {lines}"):
        assert decode_picture(way, "image").size == (9, 5)


@pytest.mark.parametrize(
    ("size", "given", "missing"),
    [((1, 100_000), {"width": 2048}, "height"), ((100_000, 1), {"height": 512}, "width")],
)
def test_a_side_that_is_not_given_makes_no_picture_of_any_size(
    size: tuple[int, int], given: dict[str, int], missing: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        prepare_pictures(check_call(Change, {"init_images": [text(encode(size))], **given}))
    assert caught.value.facts["parameter"] == missing
