"""The visible mark: a short text in a corner. It is the only label for which a picture has to be encoded anew."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from agent.labels.settings import Corner
from agent.labels.webp import PIXELS, WebpFile

if TYPE_CHECKING:
    from PIL import Image, ImageFile, ImageFont

    from agent.labels.animation import Frame

#: Of the letters' height: their dark edge, which makes them readable on light and dark, and the distance to the border.
EDGE, MARGIN = 0.1, 0.6

#: No font has a letter here: it shows how a missing one is drawn.
NO_LETTER = "\U0010fffe"

#: At this size fonts are measured.
MEASURED = 200

#: Letters are never smaller, in pixels; below this nobody can read them.
SMALLEST = 8

#: WebP does not tell with which quality it was made. PNG's level is ComfyUI's own.
WEBP_QUALITY, WEBP_METHOD, PNG_LEVEL = 95, 4, 4

#: How what is shown by EXIF's orientation (EXIF 2.32, tag 0x0112) turns into what the file has, as names of
#: PIL.Image.Transpose.
TURNED = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}
ORIENTATION = 0x0112


class UnusableFont(ValueError):
    """The font cannot be read, or lacks letters of the text, or the text is too long."""


class GivenUp(Exception):
    """Nobody waits for the picture any more."""


class Mark:
    """One text in one font, drawn as large as each picture asks for."""

    def __init__(self, text: str, font: str | None, height_percent: float, corner: Corner) -> None:
        """Raises UnusableFont."""
        self._text, self._path, self._corner = text, font, corner
        self._height = height_percent / 100
        try:
            measured = self._font(MEASURED)
        except OSError as exc:
            raise UnusableFont(f"the font cannot be read ({exc})") from None
        if lacking := [letter for letter in text if not letter.isspace() and not _has(measured, letter)]:
            raise UnusableFont(
                f"the font has no letter for {' '.join(lacking)}; name one that has in AGENT_LABEL_MARK_FONT"
            )
        left, top, right, bottom = measured.getbbox(text)
        if bottom <= top:
            raise UnusableFont("there is nothing to be seen of the text")
        #: Size of the font for letters of height 1, and the text's width then.
        self._size, self._width = MEASURED / (bottom - top), (right - left) / (bottom - top)
        if (self._width + 2 * (MARGIN + EDGE)) * self._height > 1:
            raise UnusableFont("the text is too long: in this height it would be wider than a picture")

    def draw(
        self, data: bytes, most_pixels: int | None = None, is_unwanted: Callable[[], bool] = bool
    ) -> bytes:
        """The picture with the mark, in the same format, without what it told of itself. Takes a while, and memory for
        a few frames, however many there are. `is_unwanted` is asked before each of them.

        Raises TooManyPixels for one with more than `most_pixels`, GivenUp.
        """
        # Pillow, which the start does without.
        from agent.labels.animation import write_png, write_webp  # noqa: PLC0415
        from agent.safety.picture import count_frames, open_picture  # noqa: PLC0415

        with open_picture(data, most_pixels) as picture:
            how = _encoding(picture, data)
            stamp = self._stamp(picture)
            count, loop = count_frames(picture, most_pixels), int(picture.info.get("loop", 0))
            if count > 1 and picture.format == "WEBP":
                return write_webp(_frames(picture, count, stamp, is_unwanted), loop=loop, how=how)
            if count > 1 and picture.format == "PNG":
                has_default = bool(picture.info.get("default_image"))
                frames = _frames(picture, count, stamp, is_unwanted)
                return write_png(frames, count, loop=loop, has_default=has_default, how=how)
            out = io.BytesIO()
            stamp.on(_drawable(picture)).save(out, picture.format, **how)
        return out.getvalue()

    def _stamp(self, picture: Image.Image) -> _Stamp:
        """The mark as large, and where, and turned as this picture needs it."""
        from PIL import Image, ImageDraw  # noqa: PLC0415

        orientation = picture.getexif().get(ORIENTATION, 1)
        width, height = shown = picture.size if orientation < 5 else (picture.height, picture.width)
        letters = max(min(width, height) * self._height, SMALLEST)
        letters = min(
            letters, width / (self._width + 2 * (MARGIN + EDGE)), height / (1 + 2 * (MARGIN + EDGE))
        )
        # Hinting and rounding may make letters a little lower than they were measured.
        font = self._font(max(letters * self._size * 1.03 + 0.5, 1))
        edge, margin = max(round(letters * EDGE), 1), letters * MARGIN
        nothing = ImageDraw.Draw(Image.new("L", (1, 1)))
        left, top, right, bottom = nothing.textbbox((0, 0), self._text, font, stroke_width=edge)
        is_right = self._corner in (Corner.BOTTOM_RIGHT, Corner.TOP_RIGHT)
        is_low = self._corner in (Corner.BOTTOM_RIGHT, Corner.BOTTOM_LEFT)
        x = width - margin - right if is_right else margin - left
        y = height - margin - bottom if is_low else margin - top
        # The part of the picture that has all of it; a pixel more on each side, where edges may be soft.
        box = (
            max(0, floor(x + left) - 1),
            max(0, floor(y + top) - 1),
            min(width, ceil(x + right) + 1),
            min(height, ceil(y + bottom) + 1),
        )
        layer = Image.new("LA", (max(1, box[2] - box[0]), max(1, box[3] - box[1])), (0, 0))
        draw = ImageDraw.Draw(layer)
        place = (x - box[0], y - box[1])
        draw.text(place, self._text, (255, 255), font, stroke_width=edge, stroke_fill=(0, 255))
        turn = TURNED.get(orientation)
        where = _turned_place(orientation, shown, box[:2], layer.size)
        light, cover = (layer.transpose(Image.Transpose[turn]) if turn else layer).split()
        return _Stamp(light, cover, where)

    def _font(self, size: float) -> ImageFont.FreeTypeFont:
        from PIL import ImageFont  # noqa: PLC0415

        if self._path is not None:
            return ImageFont.truetype(self._path, size)
        found = ImageFont.load_default(size)
        if not isinstance(found, ImageFont.FreeTypeFont):
            raise UnusableFont("this Pillow was built without FreeType")
        return found


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The mark as it is put on a picture: how light it is, how much it covers, and its upper left corner."""

    light: Image.Image
    cover: Image.Image
    place: tuple[int, int]

    def on(self, frame: Image.Image) -> Image.Image:
        """The frame, which is changed."""
        from PIL import Image  # noqa: PLC0415

        frame.paste(Image.merge(frame.mode, _bands(frame.mode, self.light)), self.place, self.cover)
        return frame


def _frames(
    picture: ImageFile.ImageFile, count: int, stamp: _Stamp, is_unwanted: Callable[[], bool]
) -> Iterator[Frame]:
    """Each frame with the mark, in one mode: formats of animations have one."""
    from agent.labels.animation import Frame  # noqa: PLC0415

    mode = "RGBA" if picture.has_transparency_data else "RGB"
    for number in range(count):
        if is_unwanted():
            raise GivenUp
        picture.seek(number)
        picture.load()
        duration = float(picture.info.get("duration", 0))
        frame = _drawable(picture)
        yield Frame(stamp.on(frame if frame.mode == mode else frame.convert(mode)), duration)


def _drawable(picture: Image.Image) -> Image.Image:
    """A copy that can be drawn upon."""
    return picture.copy() if picture.mode in ("RGB", "RGBA", "L", "LA", "CMYK") else _plain(picture)


def _turned_place(
    orientation: int, shown: tuple[int, int], place: tuple[int, ...], size: tuple[int, int]
) -> tuple[int, int]:
    """Where a part of the picture that is shown, given by its place and size, lies in the file."""
    x, y = place
    right, low = shown[0] - x - size[0], shown[1] - y - size[1]
    return {
        2: (right, y),
        3: (right, low),
        4: (x, low),
        5: (y, x),
        6: (y, right),
        7: (low, right),
        8: (low, x),
    }.get(orientation, (x, y))


def _has(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether a font has a letter: a missing one is drawn as nothing, or as the font's own sign for that."""
    drawn, missing = font.getmask(letter), font.getmask(NO_LETTER)
    return drawn.getbbox() is not None and (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


def _encoding(picture: Any, data: bytes) -> dict[str, Any]:
    """Parameters with which the picture is saved as much like it was as can be."""
    if picture.format == "JPEG":
        from PIL.JpegImagePlugin import get_sampling  # noqa: PLC0415

        sampling = get_sampling(picture)
        found: dict[str, Any] = {"qtables": picture.quantization, "dpi": picture.info.get("dpi", (0, 0))}
        if sampling >= 0:
            found["subsampling"] = sampling
        if picture.info.get("progressive"):
            found["progressive"] = True
        return found
    if picture.format == "WEBP":
        if _is_lossless(data):
            return {"lossless": True, "quality": 0, "method": 0, "exact": True}
        return {"quality": WEBP_QUALITY, "method": WEBP_METHOD}
    return {"compress_level": PNG_LEVEL}


def _is_lossless(webp: bytes) -> bool:
    """Whether its pixels, in an animation those of the first frame, are kept as they were."""
    kind, body = next(chunk for chunk in WebpFile.parse(webp).chunks if chunk[0] in PIXELS)
    return b"VP8L" in (kind, bytes(body[16:20]) if kind == b"ANMF" else b"")


def _plain(picture: Image.Image) -> Image.Image:
    """A picture with a palette, or with more than eight bits, in colours that can be drawn upon."""
    if picture.mode.startswith("I"):
        return picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode == "1":
        return picture.convert("L")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _bands(mode: str, light: Image.Image) -> list[Image.Image]:
    """Grey of this lightness in each band of a mode."""
    from PIL import Image, ImageChops  # noqa: PLC0415

    full = Image.new("L", light.size, 255)
    none = Image.new("L", light.size, 0)
    return {
        "L": [light],
        "LA": [light, full],
        "RGB": [light] * 3,
        "RGBA": [light, light, light, full],
        "CMYK": [none, none, none, ImageChops.invert(light)],
    }[mode]
