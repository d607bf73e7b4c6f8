"""Draws the stand-in for a generated picture: always the same for the same seed, texts and size."""

from __future__ import annotations

import hashlib
import random

from PIL import Image, ImageDraw

CAPTION = "simulated"


def paint(recipe: str, width: int, height: int, done: float = 1.0) -> Image.Image:
    """A sky of two colours with a few discs, chosen by the recipe; `done` below 1 leaves noise over it."""
    chance = random.Random(hashlib.sha256(recipe.encode()).digest())  # noqa: S311 - a picture, not a secret
    picture = _gradient(_color(chance), _color(chance)).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for _ in range(7):
        x, y = chance.random() * width, chance.random() * height
        radius = (0.05 + 0.2 * chance.random()) * min(width, height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_color(chance))
    if width >= 96 and height >= 32:
        draw.text((4, height - 14), CAPTION, fill=(255, 255, 255))
    if done >= 1:
        return picture
    noise = Image.frombytes("RGB", (64, 64), chance.randbytes(64 * 64 * 3)).resize((width, height))
    return Image.blend(noise, picture, done)


def _color(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    small = Image.new("RGB", (1, 2))
    small.putdata([top, bottom])
    return small
