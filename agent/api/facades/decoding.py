"""Pictures that a facade itself has to decode, for a mask or another size. Belongs into a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import InputTooLarge, InvalidInput, InvalidParameter
from agent.inputs.decode import decode_base64, parse_data_uri
from agent.inputs.kinds import MediaLimits

if TYPE_CHECKING:
    from PIL.Image import Image

#: Decoding takes memory.
MOST_PIXELS = 4096 * 4096


def decode_picture(text: str, parameter: str) -> Image:
    """A picture that a caller sent as base64 or data URI, with transparency, and turned as its EXIF says.

    Only the formats that inputs may have are read: some others of Pillow's run interpreters, or hold more pixels than
    they say. Raises InvalidInput, InvalidParameter.
    """
    from PIL import ImageOps  # noqa: PLC0415 - keeps the start of the process light

    from agent.inputs.media import opened  # noqa: PLC0415

    try:
        limits = MediaLimits(max_bytes=len(text), max_pixels=MOST_PIXELS)
        is_uri = text.startswith("data:")
        data = parse_data_uri(text, limits.max_bytes)[1] if is_uri else decode_base64(text, limits.max_bytes)
        with opened(data, limits) as picture:
            return ImageOps.exif_transpose(picture).convert("RGBA")
    except InputTooLarge:
        raise InvalidParameter(
            f'Parameter "{parameter}": it has more than {MOST_PIXELS} pixels. Send a smaller one.',
            parameter=parameter,
        ) from None
    except InvalidInput as error:
        raise InvalidInput(f'Parameter "{parameter}": {error.detail}', parameter=parameter) from None
    except Exception as exc:  # Pillow raises whatever it meets in a broken file
        raise InvalidInput(
            f'Parameter "{parameter}": the picture is broken or cut short.', parameter=parameter
        ) from exc
