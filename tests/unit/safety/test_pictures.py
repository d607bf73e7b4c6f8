"""How pictures are opened, shrunken and blurred."""

from __future__ import annotations

import io
import weakref

import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from agent.safety.blur import blurred
from agent.safety.judge import Judge
from agent.safety.look import VIEW_SIDE, look_at
from agent.safety.picture import MOST_FRAMES, OPENERS, TooManyPixels, Unreadable, frames
from agent.safety.settings import SafetySettings


def scene(size: tuple[int, int] = (640, 480)) -> Image.Image:
    picture = Image.new("RGB", size, (240, 230, 210))
    pen = ImageDraw.Draw(picture)
    for step in range(0, size[0], 16):
        pen.line((step, 0, size[0] - step, size[1]), (20, 30, 80), 3)
    return picture


def encoded(picture: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()


@pytest.mark.parametrize("kind", OPENERS)
def test_blurred_picture_keeps_format_and_size_and_nothing_else(kind: str) -> None:
    data = encoded(scene(), kind)
    shown = Image.open(io.BytesIO(blurred(data)))
    assert (shown.format, shown.size) == (kind, (640, 480))
    # What is left of it fits into a picture of 8 by 6 pixels.
    small = shown.convert("RGB").resize((8, 6), Image.Resampling.BOX)
    again = small.resize((640, 480), Image.Resampling.BICUBIC)
    worst = max(high for _, high in _difference(shown.convert("RGB"), again).getextrema())
    assert worst < 60
    assert max(high for _, high in _difference(scene(), again).getextrema()) > 120


def _difference(one: Image.Image, other: Image.Image) -> Image.Image:
    from PIL import ImageChops  # noqa: PLC0415

    return ImageChops.difference(one, other)


def test_blurred_picture_has_neither_metadata_nor_transparency() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", '{"secret": "words"}')
    layer = scene().convert("RGBA")
    layer.putalpha(0)
    data = encoded(layer, pnginfo=info)
    shown = Image.open(io.BytesIO(blurred(data)))
    assert (shown.mode, shown.info) == ("RGB", {})
    assert b"secret" in data
    assert b"secret" not in blurred(data)


def test_what_transparency_hides_is_looked_at_too() -> None:
    layer = scene().convert("RGBA")
    layer.putalpha(0)
    seen, under = look_at(encoded(layer), None, wants_views=True).views
    assert seen.getcolors() == [(640 * 480, (128, 128, 128))]
    assert under.tobytes() == scene().tobytes()
    assert len(look_at(encoded(scene().convert("RGBA")), None, wants_views=True).views) == 1


def test_what_transparency_hides_in_a_later_frame_is_looked_at_too() -> None:
    plain = [Image.new("RGBA", (640, 480), (n * 20, 0, 0, 255)) for n in range(3)]
    layer = scene().convert("RGBA")
    layer.putalpha(0)
    data = encoded(plain[0], save_all=True, append_images=[*plain[1:], layer])
    views = look_at(data, None, wants_views=True).views
    assert len(views) == 5
    assert views[-1].tobytes() == scene().tobytes()


def test_views_are_small_and_of_the_whole_picture() -> None:
    (view,) = look_at(encoded(scene((4000, 1000))), None, wants_views=True).views
    assert view.size == (VIEW_SIDE, 256)


def test_frames_are_spread_over_an_animation() -> None:
    shades = [Image.new("RGB", (16, 16), (n * 10, 0, 0)) for n in range(21)]
    found = list(frames(encoded(shades[0], "WEBP", save_all=True, append_images=shades[1:], lossless=True)))
    assert [frame.getpixel((0, 0)) for frame, _ in found] == [(n, 0, 0) for n in (0, 50, 100, 150, 200)]
    assert len(found) == MOST_FRAMES


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x20ftypisom" + bytes(50),
        encoded(scene())[:5000],
        encoded(scene(), "WEBP")[:500],
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["empty", "svg", "video", "cut-png", "cut-webp", "no-png"],
)
def test_what_is_no_picture_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        list(frames(data))


def test_frames_are_in_memory_one_at_a_time() -> None:
    shades = [Image.new("RGB", (16, 16), (n * 10, 0, 0)) for n in range(9)]
    data = encoded(shades[0], "PNG", save_all=True, append_images=shades[1:])
    before: weakref.ref[Image.Image] | None = None
    for frame, _ in frames(data):
        assert before is None or before() is None
        before = weakref.ref(frame)
        del frame


@pytest.mark.parametrize("kind", OPENERS)
def test_picture_with_more_pixels_than_are_decoded_is_not(kind: str) -> None:
    data = encoded(scene((100, 80)), kind)
    assert next(frames(data, 8000)).frame.size == (100, 80)
    with pytest.raises(TooManyPixels, match="100 x 80 pixels, more than 7999"):
        next(frames(data, 7999))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_frames_of_an_animation_count_together(kind: str) -> None:
    shades = [Image.new("RGB", (10, 10), (n * 10, 0, 0)) for n in range(21)]
    data = encoded(shades[0], kind, save_all=True, append_images=shades[1:])
    assert len(list(frames(data, 210))) == MOST_FRAMES
    with pytest.raises(TooManyPixels, match="21 times 10 x 10 pixels, more than 10 times 209"):
        list(frames(data, 209))


@pytest.mark.parametrize(
    ("data", "media_type"), [(encoded(scene()), "image/png"), (encoded(scene()), "audio/wav")]
)
async def test_picture_that_is_too_large_is_unseen_whatever_it_is_called(
    data: bytes, media_type: str
) -> None:
    judge = Judge(SafetySettings(), (), most_pixels=1000)
    found = await judge.judge(data, media_type, failed=True, classified=True)
    assert (found.is_unseen, found.failed) == (True, None)
    assert found.reason == "it has 640 x 480 pixels, more than 1000 (AGENT_MAX_OUTPUT_PIXELS)"
