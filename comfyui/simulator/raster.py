"""Pictures and masks: ComfyUI's float tensors, held as Pillow images of mode F.

ComfyUI computes in float32 between 0 and 1 and cuts off (not rounds) when it writes 8 bits; inverting 65 gives 189,
not 190. Mode F is float32 as well, so the same arithmetic gives the same bytes, without numpy or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageMath

Band = Image.Image
Frame = tuple[Band, ...]


@dataclass(frozen=True, repr=False)
class Raster:
    """A batch of frames of one size; a frame is one mode-F band per channel. A mask has a single band."""

    frames: tuple[Frame, ...]
    is_mask: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.frames[0][0].size

    @property
    def channels(self) -> int:
        return len(self.frames[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """As torch gives it: batch, height, width, and channels unless it is a mask."""
        width, height = self.size
        return (len(self.frames), height, width) + (() if self.is_mask else (self.channels,))

    def map(self, change: Callable[[Band], Band]) -> Raster:
        """The same raster with every band changed."""
        return Raster(tuple(tuple(change(band) for band in frame) for frame in self.frames), self.is_mask)

    def combine(self, other: Raster, rule: Callable[[Band, Band], Band]) -> Raster:
        """Band by band with another raster; the shorter batch is repeated."""
        count = max(len(self.frames), len(other.frames))
        pairs = zip(self.repeated(count).frames, other.repeated(count).frames, strict=True)
        return Raster(tuple(tuple(map(rule, left, right)) for left, right in pairs), self.is_mask)

    def repeated(self, count: int) -> Raster:
        """Exactly `count` frames, starting over when there are too few."""
        return Raster(tuple(self.frames[index % len(self.frames)] for index in range(count)), self.is_mask)

    def to_images(self) -> list[Image.Image]:
        """8-bit Pillow images: L for one channel, RGB, or RGBA."""
        return [_to_image(frame) for frame in self.frames]

    def __repr__(self) -> str:
        """What torch prints for such a tensor; error reports and PreviewAny show it."""
        from comfyui.simulator.tensor_text import tensor_text  # noqa: PLC0415 - rarely needed, keeps the start quick

        return tensor_text(self)


def solid(
    width: int, height: int, values: Iterable[float], batch: int = 1, *, is_mask: bool = False
) -> Raster:
    frame = tuple(Image.new("F", (width, height), value) for value in values)
    return Raster((frame,) * batch, is_mask)


def from_image(image: Image.Image) -> Raster:
    """One frame from an 8-bit image, one band per channel of its mode."""
    return Raster((tuple(to_band(channel) for channel in image.split()),))


def to_band(channel: Image.Image) -> Band:
    return compute(lambda x: x / 255.0, channel.convert("F"))


def compute(formula: Callable[..., Any], *bands: Band) -> Band:
    """Evaluate float32 arithmetic over bands of one size."""
    names = [f"band{index}" for index in range(len(bands))]
    given: dict[str, Any] = dict(zip(names, bands, strict=True))
    result: Band = ImageMath.lambda_eval(lambda images: formula(*(images[name] for name in names)), **given)
    return result


def clamp(band: Band) -> Band:
    """Limit to 0..1."""
    limited: Band = ImageMath.lambda_eval(
        lambda images: images["min"](images["max"](images["x"], 0.0), 1.0), x=band
    )
    return limited


def to_bytes_band(band: Band) -> Image.Image:
    """8 bits as `255 * x` cut off towards zero and limited to 0..255."""
    return compute(lambda x: x * 255.0, band).convert("L")


def _to_image(frame: Frame) -> Image.Image:
    bands = [to_bytes_band(band) for band in frame]
    if len(bands) == 1:
        return bands[0]
    return Image.merge("RGB" if len(bands) == 3 else "RGBA", bands)
