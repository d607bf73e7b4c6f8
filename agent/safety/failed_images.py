"""Tells a picture that a run has failed to make from one that is only dark, pale or plain.

A diffusion run can end without an error and with nothing: half precision overflows to NaN, which is saved as black; a
model's own filter paints its answer black; a decoder is given what was never denoised. Judged is what the pixels are
like, by means that Pillow has: no picture is judged by the size of its file.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageChops, ImageStat

#: Side of the blocks whose means show whether there is anything large in the picture, in pixels.
FLAT_BLOCK, NOISE_BLOCK = 16, 32

#: What a decoder leaves over a single colour spreads no further, in levels of 255: a star or a thin line does.
GRAIN_RANGE = 40

#: Below this side, in pixels, there are too few blocks to call a picture noise.
LEAST_NOISE_SIDE = 64

#: Noise fills a picture. One of which a larger share is of one value, give or take some levels, is drawn on a ground.
GROUND_LEVELS, GROUND_SHARE = 4, 0.6

#: Side of the piece from the middle whose pixels are compared with their neighbours.
NEIGHBOURS_SIDE = 320

#: Which neighbours: along the axes and aslant, so that hatching of any direction is found to be alike somewhere.
NEIGHBOURS = (
    (1, 0),
    (0, 1),
    (1, 1),
    (-1, 1),
    (2, 0),
    (0, 2),
    (2, 1),
    (1, 2),
    (-1, 2),
    (-2, 1),
    (3, 0),
    (0, 3),
    (4, 0),
    (0, 4),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """`black_level`: the brightest value of a black picture, of 255; `flat_range`: how far the blocks of a picture of
    one colour lie apart, in levels; `noise_score`: from where on it is noise."""

    black_level: int = 10
    flat_range: int = 2
    noise_score: float = 0.55


@dataclass(frozen=True, slots=True)
class Failure:
    """`category` is black, flat or noise; `score`, 0 to 1, how plainly it is that."""

    category: str
    score: float


def find_failure(picture: Image.Image, limits: Limits) -> Failure | None:
    """What is wrong with an RGB picture as a whole. Takes some 20 ms for a million pixels: use a thread."""
    whole = ImageStat.Stat(picture)
    peak = max(high for _, high in whole.extrema)
    if peak <= limits.black_level:
        return Failure("black", 1 - peak / 255)
    blocks = ImageStat.Stat(picture.reduce(FLAT_BLOCK))
    spread = max(high - low for low, high in blocks.extrema)
    if spread <= limits.flat_range and max(high - low for low, high in whole.extrema) <= GRAIN_RANGE:
        return Failure("flat", 1 - spread / 255)
    if min(picture.size) >= LEAST_NOISE_SIDE:
        score = noise_score(picture, whole.var)
        if score >= limits.noise_score:
            return Failure("noise", score)
    return None


def noise_score(picture: Image.Image, variances: list[float]) -> float:
    """How little order there is in a picture, 0 to 1.

    A picture of something has large things in it: the means of its blocks differ nearly as much as its pixels do. Where
    they do not, it may still be a texture, whose pixels resemble their neighbours or those some steps away, and whose
    colours rise and fall together. Noise has none of this; a latent that was never denoised lacks the last.
    """
    if _share_of_ground(picture) > GROUND_SHARE:
        return 0.0
    means = ImageStat.Stat(picture.reduce(NOISE_BLOCK)).var
    large: float = (
        max(mean / pixel if pixel else 1.0 for mean, pixel in zip(means, variances, strict=True)) ** 0.5
    )
    order = max(large, min(_likeness_of_neighbours(picture), _likeness_of_colors(picture, variances)))
    return max(0.0, 1 - order)


def _share_of_ground(picture: Image.Image) -> float:
    """The largest share of a channel's pixels that are within some levels of its most frequent value."""
    counts, pixels, found = picture.histogram(), picture.width * picture.height, 0
    for start in range(0, len(counts), 256):
        channel = counts[start : start + 256]
        peak = channel.index(max(channel))
        found = max(found, sum(channel[max(0, peak - GROUND_LEVELS) : peak + GROUND_LEVELS + 1]))
    return found / pixels


def _likeness_of_neighbours(picture: Image.Image) -> float:
    """The largest correlation, of either sign, of pixels with some of their neighbours."""
    width, height = picture.size
    left, top = max(0, (width - NEIGHBOURS_SIDE) // 2), max(0, (height - NEIGHBOURS_SIDE) // 2)
    right, bottom = min(width, left + NEIGHBOURS_SIDE), min(height, top + NEIGHBOURS_SIDE)
    piece = picture.crop((left, top, right, bottom)).getchannel("G")
    wide, high = piece.size
    found = 0.0
    for right_by, down_by in NEIGHBOURS:
        first = piece.crop((max(0, -right_by), 0, wide - max(0, right_by), high - down_by))
        second = piece.crop((max(0, right_by), down_by, wide - max(0, -right_by), high))
        difference = ImageStat.Stat(ImageChops.difference(first, second))
        variance = ImageStat.Stat(first).var[0]
        # The mean square of a difference is 2 * variance * (1 - correlation).
        correlation = 1 - difference.sum2[0] / difference.count[0] / (2 * variance) if variance else 1.0
        found = max(found, abs(correlation))
    return min(1.0, found)


def _likeness_of_colors(picture: Image.Image, variances: list[float]) -> float:
    """The largest correlation of two of the three channels."""
    channels, found = picture.split(), 0.0
    for one, other in ((0, 1), (1, 2), (0, 2)):
        difference = ImageStat.Stat(ImageChops.subtract(channels[one], channels[other], 2, 128))
        together = 2 * (variances[one] * variances[other]) ** 0.5
        apart = variances[one] + variances[other] - 4 * difference.var[0]
        found = max(found, apart / together if together else 1.0)
    return min(1.0, found)
