"""Separable convolution over mode-F bands, which Pillow's own filters do not support."""

from __future__ import annotations

import math

from PIL import Image

from comfyui.simulator.raster import Band, compute


def gaussian(radius: int, sigma: float) -> list[float]:
    """Normalised weights of 2 * radius + 1 taps; like upstream, the whole kernel spans -1..1 whatever its radius."""
    taps = [math.exp(-((step / radius) ** 2) / (2 * sigma**2)) for step in range(-radius, radius + 1)]
    return [tap / sum(taps) for tap in taps]


def blur_band(band: Band, weights: list[float]) -> Band:
    """Convolve along both axes, the edges reflected."""
    low, high = band.getextrema()
    if low == high:
        return band
    return _upright(_along_rows(_upright(_along_rows(band, weights)), weights))


def _along_rows(band: Band, weights: list[float]) -> Band:
    radius = len(weights) // 2
    width, height = band.size
    padded = Image.new("F", (width + 2 * radius, height))
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    padded.paste(band, (radius, 0))
    padded.paste(band.crop((1, 0, radius + 1, height)).transpose(flip), (0, 0))
    padded.paste(band.crop((width - 1 - radius, 0, width - 1, height)).transpose(flip), (width + radius, 0))
    total = Image.new("F", band.size)
    for at, weight in enumerate(weights):
        shifted = padded.crop((at, 0, at + width, height))
        total = compute(lambda sum_, x, w=weight: sum_ + x * w, total, shifted)
    return total


def _upright(band: Band) -> Band:
    return band.transpose(Image.Transpose.TRANSPOSE)
