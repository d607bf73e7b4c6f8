"""Which answer an `Accept` header asks for, and pictures in other formats."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.picture import ANY_PICTURE, FORMATS, JSON, convert, preferred_type
from agent.errors import PictureTypeUnknown
from tests.integration.agent.pictures import animation, encode, look, picture

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ((), JSON),
        (("",), JSON),
        (("*/*",), JSON),
        (("application/json",), JSON),
        (("text/html",), JSON),
        (("image/png",), PNG),
        (("IMAGE/PNG",), PNG),
        (("image/*",), ANY_PICTURE),
        (("image/png, */*",), PNG),
        (("*/*", "image/webp"), WEBP),
        (("image/*, image/jpeg",), JPEG),
        (("image/png, image/webp",), PNG),
        (("image/png;q=0.5, image/webp",), WEBP),
        (("image/webp;q=0.4, application/json;q=0.6",), JSON),
        (("application/json;q=0.1, image/jpeg;q=0.2",), JPEG),
        (("image/png;q=0",), JSON),
        (("image/png;q=x, image/jpeg;q=0.1",), JPEG),
        (("image/png;q=7, image/jpeg;q=0.1",), JPEG),
        (("image/png;q=nan",), JSON),
        (("image/avif, image/gif;q=0.9, */*;q=0.1",), JSON),
        (("image/gif;q=0, text/html",), JSON),
        (("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",), WEBP),
        (("image/png; charset=x; q=1.0",), PNG),
    ],
)
def test_accept_header_is_understood(accept: tuple[str, ...], wanted: str) -> None:
    assert preferred_type(accept) == wanted


@pytest.mark.parametrize("accept", ["image/gif", "image/avif, image/gif", "text/html, image/gif;q=0.1"])
def test_pictures_of_other_types_are_refused(accept: str) -> None:
    with pytest.raises(PictureTypeUnknown):
        preferred_type((accept,))


@given(st.lists(st.text()))
def test_no_accept_header_breaks_anything(accept: list[str]) -> None:
    with suppress(PictureTypeUnknown):
        assert preferred_type(accept) in (JSON, ANY_PICTURE, *FORMATS)


@pytest.mark.parametrize("kind", list(FORMATS.values()))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_every_kind_of_picture_can_be_converted(kind: str, mode: str) -> None:
    source = picture(0 if mode in ("L", "P", "1", "I;16") else (0,) * len(mode), (5, 3), mode)
    found = look(convert(encode(source, "TIFF"), kind))
    assert (found.format, found.size) == (kind, (5, 3))


def test_what_is_transparent_becomes_white_in_a_jpeg() -> None:
    found = look(convert(encode(picture((255, 0, 0, 0), mode="RGBA")), "JPEG"))
    assert found.getpixel((0, 0)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame() -> None:
    red = look(convert(animation(), "PNG")).convert("RGB")
    assert red.getpixel((0, 0)) == (255, 0, 0)
    assert getattr(look(convert(animation(), "WEBP")), "n_frames", 1) == 1
