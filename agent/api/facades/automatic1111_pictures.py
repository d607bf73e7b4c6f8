"""Pictures and masks of img2img, made the size that is asked for. Everything here belongs into a thread."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from agent.api.facades.decoding import MOST_PIXELS, decode_picture
from agent.api.facades.request import data_uri
from agent.errors import InvalidParameter

if TYPE_CHECKING:
    from PIL.Image import Image

    from agent.api.facades.automatic1111_input import Change

#: Sides of pictures are multiples of so many pixels.
STEP = 8

#: resize_mode
STRETCH, CROP, FILL = 0, 1, 2

#: Above this a mask's alpha counts.
OPAQUE = 128


class Pictures(NamedTuple):
    """As named workflows take them; `size` in pixels is None where the picture comes as it was sent."""

    image: str
    mask: str | None
    size: tuple[int, int] | None


def prepare_pictures(given: Change) -> Pictures:
    """Raises InvalidInput, InvalidParameter."""
    sent = given.init_images[0]
    if sent.startswith(("http://", "https://")):
        if given.mask is not None:
            raise InvalidParameter(
                'Parameter "init_images": with a mask send the picture itself.', parameter="init_images"
            )
        return Pictures(sent, None, None)
    image = _flatten(decode_picture(sent, "init_images"))
    size = _floor(given.width or image.width), _floor(given.height or image.height)
    has_size = given.width is not None or given.height is not None
    if has_size:
        if size[0] * size[1] > MOST_PIXELS:
            missing = "height" if given.height is None else "width"
            raise InvalidParameter(
                f'Parameter "{missing}" is needed: the picture has {size[0]} x {size[1]} pixels without it.',
                parameter=missing,
            )
        image = _resize(image, size, given.resize_mode)
    mask = None
    if given.mask is not None:
        blur = [given.mask_blur if v is None else v for v in (given.mask_blur_x, given.mask_blur_y)]
        made = _mask(
            decode_picture(given.mask, "mask"), (blur[0], blur[1]), is_inverted=given.inpainting_mask_invert
        )
        mask = _encode(_resize(made, image.size, given.resize_mode).convert("RGB"))
    return Pictures(_encode(image), mask, size if has_size else None)


def _flatten(image: Image) -> Image:
    """On white, as there."""
    from PIL import Image as Pillow  # noqa: PLC0415

    flat = Pillow.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    return flat.convert("RGB")


def _mask(image: Image, blur: tuple[int, int], *, is_inverted: bool) -> Image:
    """White where it is drawn anew. The transparency of a picture counts, where it has any."""
    from PIL import ImageFilter, ImageOps  # noqa: PLC0415

    alpha = image.getchannel("A")
    has_alpha = ImageOps.invert(alpha).getbbox() is not None
    mask = alpha.point([255 if v > OPAQUE else 0 for v in range(256)]) if has_alpha else image.convert("L")
    if is_inverted:
        mask = ImageOps.invert(mask)
    return mask.filter(ImageFilter.GaussianBlur(blur)) if any(blur) else mask


def _resize(image: Image, size: tuple[int, int], mode: int) -> Image:
    from PIL import Image as Pillow  # noqa: PLC0415
    from PIL import ImageOps  # noqa: PLC0415

    how = Pillow.Resampling.LANCZOS
    if image.size == size:
        return image
    if mode == STRETCH:
        return image.resize(size, how)
    if mode == CROP:
        return ImageOps.fit(image, size, how)
    inner = ImageOps.contain(image, size, how)
    left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    # What is beside it is its border, stretched.
    made = inner.resize(size)
    right, bottom = left + inner.width, top + inner.height
    for box, strip in (
        ((0, 0, size[0], top), (0, 0, inner.width, 1)),
        ((0, bottom, size[0], size[1]), (0, inner.height - 1, inner.width, inner.height)),
        ((0, 0, left, size[1]), (0, 0, 1, inner.height)),
        ((right, 0, size[0], size[1]), (inner.width - 1, 0, inner.width, inner.height)),
    ):
        wide, high = box[2] - box[0], box[3] - box[1]
        if wide > 0 and high > 0:
            made.paste(inner.crop(strip).resize((wide, high)), box)
    made.paste(inner, (left, top))
    return made


def _encode(image: Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return data_uri(out.getvalue())


def _floor(side: int) -> int:
    return max(side // STEP, 1) * STEP
