"""The visible mark: a short text in a corner. It is the only label for which a picture has to be encoded anew."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from agent.labels.settings import Corner

if TYPE_CHECKING:
    from PIL import Image, ImageFont

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

#: How a picture's coordinates turn into those in which EXIF's orientation has it shown (EXIF 2.32, tag 0x0112), and
#: back, as names of PIL.Image.Transpose.
TURNED = {
    2: ("FLIP_LEFT_RIGHT", "FLIP_LEFT_RIGHT"),
    3: ("ROTATE_180", "ROTATE_180"),
    4: ("FLIP_TOP_BOTTOM", "FLIP_TOP_BOTTOM"),
    5: ("TRANSPOSE", "TRANSPOSE"),
    6: ("ROTATE_270", "ROTATE_90"),
    7: ("TRANSVERSE", "TRANSVERSE"),
    8: ("ROTATE_90", "ROTATE_270"),
}
ORIENTATION = 0x0112


class UnusableFont(ValueError):
    """The font cannot be read, or lacks letters of the text, or the text is too long."""


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

    def draw(self, data: bytes) -> bytes:
        """The picture with the mark, in the same format, without what it told of itself. Takes a while."""
        from agent.safety.picture import open_picture  # noqa: PLC0415 - Pillow, which the start does without

        with open_picture(data) as picture:
            how = _encoding(picture, data)
            frames, durations = [], []
            for number in range(getattr(picture, "n_frames", 1)):
                picture.seek(number)
                picture.load()
                frames.append(self._marked(picture))
                durations.append(int(picture.info.get("duration", 0)))
            if len(frames) > 1:
                how |= {
                    "save_all": True,
                    "append_images": frames[1:],
                    "duration": durations,
                    "loop": picture.info.get("loop", 0),
                }
                if picture.format == "PNG":
                    how["default_image"] = bool(picture.info.get("default_image"))
            out = io.BytesIO()
            frames[0].save(out, picture.format, **how)
        return out.getvalue()

    def _marked(self, picture: Image.Image) -> Image.Image:
        """A copy of the frame that is shown, with the mark."""
        from PIL import Image  # noqa: PLC0415

        frame = picture.copy() if picture.mode in ("RGB", "RGBA", "L", "LA", "CMYK") else _plain(picture)
        layer = Image.new("LA", _shown_size(picture), (0, 0))
        self._write(layer)
        if turn := TURNED.get(picture.getexif().get(ORIENTATION, 1)):
            layer = layer.transpose(Image.Transpose[turn[1]])
        light, cover = layer.split()
        ink = Image.merge(frame.mode, _bands(frame.mode, light))
        frame.paste(ink, (0, 0), cover)
        return frame

    def _write(self, layer: Image.Image) -> None:
        from PIL import ImageDraw  # noqa: PLC0415

        width, height = layer.size
        letters = max(min(width, height) * self._height, SMALLEST)
        letters = min(
            letters, width / (self._width + 2 * (MARGIN + EDGE)), height / (1 + 2 * (MARGIN + EDGE))
        )
        # Hinting and rounding may make letters a little lower than they were measured.
        font = self._font(max(letters * self._size * 1.03 + 0.5, 1))
        draw = ImageDraw.Draw(layer)
        edge, margin = max(round(letters * EDGE), 1), letters * MARGIN
        left, top, right, bottom = draw.textbbox((0, 0), self._text, font, stroke_width=edge)
        is_right = self._corner in (Corner.BOTTOM_RIGHT, Corner.TOP_RIGHT)
        is_low = self._corner in (Corner.BOTTOM_RIGHT, Corner.BOTTOM_LEFT)
        x = width - margin - right if is_right else margin - left
        y = height - margin - bottom if is_low else margin - top
        draw.text((x, y), self._text, (255, 255), font, stroke_width=edge, stroke_fill=(0, 255))

    def _font(self, size: float) -> ImageFont.FreeTypeFont:
        from PIL import ImageFont  # noqa: PLC0415

        if self._path is not None:
            return ImageFont.truetype(self._path, size)
        found = ImageFont.load_default(size)
        if not isinstance(found, ImageFont.FreeTypeFont):
            raise UnusableFont("this Pillow was built without FreeType")
        return found


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
        if b"VP8L" in data[:64]:
            return {"lossless": True, "quality": 0, "method": 0, "exact": True}
        return {"quality": WEBP_QUALITY, "method": WEBP_METHOD}
    return {"compress_level": PNG_LEVEL}


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


def _shown_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    return (height, width) if picture.getexif().get(ORIENTATION, 1) >= 5 else (width, height)
