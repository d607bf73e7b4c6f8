"""What ComfyUI's /view makes of a picture: previews, and single channels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.editor.viewing import rendering_of
from agent.safety.picture import Unreadable
from tests.integration.agent.pictures import animation, encode, look, picture

#: Half of it can be seen through.
CLEAR = encode(picture((200, 100, 50, 128), mode="RGBA"))


def rendered(data: bytes, **query: str) -> Image.Image:
    found = rendering_of(query)
    assert found is not None
    shown = look(found.render(data))
    assert found.media_type == f"image/{shown.format}".lower()
    return shown


@pytest.mark.parametrize(
    ("query", "kind", "mode"),
    [
        ({"preview": "webp;90"}, "WEBP", "RGBA"),
        ({"preview": "jpeg"}, "JPEG", "RGB"),
        ({"preview": ""}, "WEBP", "RGBA"),
        ({"preview": "gif;50"}, "WEBP", "RGBA"),
        ({"preview": "jpeg;50", "channel": "rgba"}, "WEBP", "RGBA"),  # its "a" counts, as for ComfyUI
        ({"preview": "jpeg;50", "channel": "rgb"}, "JPEG", "RGB"),
        ({"preview": "webp;50", "channel": "rgb"}, "WEBP", "RGB"),
        ({"channel": "rgb"}, "PNG", "RGB"),
        ({"channel": "a"}, "PNG", "RGBA"),
    ],
)
def test_query_says_format_and_channels(query: dict[str, str], kind: str, mode: str) -> None:
    shown = rendered(CLEAR, **query)
    assert (shown.format, shown.mode, shown.size) == (kind, mode, (8, 8))


@pytest.mark.parametrize("query", [{}, {"channel": "rgba"}, {"channel": ""}, {"channel": "x"}])
def test_other_queries_mean_the_file_as_it_is(query: dict[str, str]) -> None:
    assert rendering_of(query) is None


def test_channels_are_the_pictures_own() -> None:
    assert rendered(CLEAR, channel="rgb").getpixel((0, 0)) == (200, 100, 50)
    assert rendered(CLEAR, channel="a").getpixel((0, 0)) == (0, 0, 0, 128)
    assert rendered(encode(picture()), channel="a").getpixel((0, 0)) == (0, 0, 0, 255)


def test_quality_is_the_last_number_of_the_preview() -> None:
    noise = encode(Image.effect_noise((64, 64), 60))

    def size(preview: str) -> int:
        found = rendering_of({"preview": preview})
        assert found is not None
        return len(found.render(noise))

    assert size("jpeg;10") < size("jpeg;60") < size("jpeg") == size("jpeg;90")
    assert size("jpeg;100") == size("jpeg;999")


@given(st.text(max_size=12), st.text(max_size=4))
def test_nothing_that_is_asked_for_is_wrong(preview: str, channel: str) -> None:
    for query in ({"preview": preview, "channel": channel}, {"preview": f"jpeg;{preview}"}):
        rendered(CLEAR, **query)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK"])
def test_pictures_of_every_mode(mode: str) -> None:
    data = encode(picture(0, mode="L").convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    for query in ({"preview": "webp"}, {"preview": "jpeg"}, {"channel": "rgb"}, {"channel": "a"}):
        assert rendered(data, **query).size == (8, 8)


def test_of_an_animation_the_first_frame_is_shown() -> None:
    shown = rendered(animation(), preview="jpeg;100")
    assert shown.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] > 250


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", encode(picture(), "PPM")]
)
def test_other_formats_are_not_decoded(data: bytes) -> None:
    """Pillow would hand PostScript to Ghostscript, which runs it, and of others nobody has counted the pixels."""
    for query in ({"preview": "webp"}, {"channel": "rgb"}, {"channel": "a"}):
        with pytest.raises(Unreadable):
            rendered(data, **query)
