"""Draws pictures of which it is known whether a run has failed: `python -m tests.labelled.pictures FOLDER` writes them
with a list, labels.csv, for `comfyui-agent check-images FOLDER --labels FOLDER/labels.csv`. A number after it draws as
many series, each from the same recipes with other random numbers; the limits were set by looking at series 0.

The ordinary ones are chosen for what is hard: dark, pale, smooth, and full of detail.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 384
Chance = np.random.Generator
Pixels = np.ndarray

#: A name that says what a picture is, and how it is made.
Recipe = Callable[[Chance], Image.Image]


@dataclass(frozen=True)
class Labelled:
    """A picture as a file; `label` is black, flat or noise, or empty for one that is as it should be."""

    name: str
    label: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Drawing:
    """How one of them is drawn: the same picture each time."""

    name: str
    label: str
    kind: str
    recipe: Recipe
    numbers: tuple[int, ...]

    def draw(self) -> Labelled:
        out = io.BytesIO()
        picture = self.recipe(np.random.default_rng(self.numbers))
        picture.save(out, self.kind, **({"quality": 90} if self.kind != "PNG" else {}))
        return Labelled(self.name, self.label, out.getvalue())


def drawings(series: int = 0) -> Iterator[Drawing]:
    """Those of one series."""
    for label, recipes in (("black", BLACK), ("flat", FLAT), ("noise", NOISE), ("", ORDINARY)):
        for number, (what, kind, recipe) in enumerate(recipes):
            extension = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[kind]
            name = f"{series}-{label or 'ordinary'}-{number:02}-{what}.{extension}"
            yield Drawing(name, label, kind, recipe, (len(label), number, series))


def write(folder: Path, series: Iterable[int] = (0,)) -> int:
    """Write them and their list; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label"))
        pictures = [drawing.draw() for number in series for drawing in drawings(number)]
        for picture in pictures:
            (folder / picture.name).write_bytes(picture.data)
            rows.writerow((picture.name, picture.label))
    return len(pictures)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _flat(color: tuple[int, ...], mode: str = "RGB", jitter: float = 0.0, size: int = SIZE) -> Recipe:
    """One colour; `jitter` is the standard deviation of what a decoder leaves over it."""

    def draw(chance: Chance) -> Image.Image:
        pixels = np.full((size, size, len(color)), color, float)
        if jitter:
            pixels = np.maximum(pixels + chance.normal(0, jitter, (size, size, 1)), 0)
        picture = _image(pixels[..., 0] if len(color) == 1 else pixels)
        return picture.convert(mode) if picture.mode != mode else picture

    return draw


def _uniform(chance: Chance) -> Image.Image:
    return _image(chance.integers(0, 256, (SIZE, SIZE, 3)))


def _gaussian(spread: float, mean: float = 128) -> Recipe:
    return lambda chance: _image(chance.normal(mean, spread, (SIZE, SIZE, 3)))


def _static(chance: Chance) -> Image.Image:
    return _image(chance.integers(0, 256, (SIZE, SIZE)))


def _salt_and_pepper(chance: Chance) -> Image.Image:
    return _image(chance.integers(0, 2, (SIZE, SIZE, 3)) * 255)


def _latent(cell: int, soft: float) -> Recipe:
    """A latent that was never denoised, as a decoder paints it: coloured cells with soft edges."""

    def draw(chance: Chance) -> Image.Image:
        cells = -(-SIZE // cell)
        small = _image(chance.normal(128, 60, (cells, cells, 3)))
        big = small.resize((cells * cell, cells * cell), Image.Resampling.BICUBIC).crop((0, 0, SIZE, SIZE))
        grain = chance.normal(0, 12, (SIZE, SIZE, 3))
        return _image(np.asarray(big.filter(ImageFilter.GaussianBlur(soft)), float) + grain)

    return draw


def _fractal(chance: Chance, slope: float = 1.0, size: int = SIZE) -> Pixels:
    """0 to 1, with the falling spectrum of clouds and landscapes."""
    spectrum = np.fft.fft2(chance.normal(size=(size, size)))
    distance = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    distance[0, 0] = 1
    field_ = np.real(np.fft.ifft2(spectrum / distance**slope))
    low, high = np.percentile(field_, (0.5, 99.5))
    return np.clip((field_ - low) / (high - low), 0, 1)


def _landscape(slope: float, dark: float = 0, bright: float = 255) -> Recipe:
    def draw(chance: Chance) -> Image.Image:
        layers = [_fractal(chance, slope) for _ in range(2)]
        tint = chance.uniform(0.4, 1, 3)
        mixed = layers[0][..., None] * tint + layers[1][..., None] * (1 - tint)
        return _image(dark + mixed * (bright - dark))

    return draw


def _stars(count: int, brightest: int, sky: int = 1) -> Recipe:
    def draw(chance: Chance) -> Image.Image:
        picture = Image.new("RGB", (SIZE, SIZE), (sky, sky, sky + 2))
        pen = ImageDraw.Draw(picture)
        for _ in range(count):
            x, y = chance.integers(0, SIZE, 2)
            light = int(chance.integers(brightest // 2, brightest + 1))
            radius = float(chance.choice([0.5, 1, 1.5]))
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), (light, light, min(255, light + 9)))
        return picture

    return draw


def _night(brightest: int, windows: int) -> Recipe:
    """Houses against a sky that is a little less dark, with or without light in them."""

    def draw(chance: Chance) -> Image.Image:
        sky = np.linspace(2, brightest * 0.6, SIZE)[:, None, None] * np.array([0.6, 0.7, 1.0])
        picture = _image(np.broadcast_to(sky, (SIZE, SIZE, 3)))
        pen = ImageDraw.Draw(picture)
        for left in range(0, SIZE, 48):
            top = int(chance.integers(SIZE // 3, SIZE - 60))
            pen.rectangle((left, top, left + 44, SIZE), (1, 1, 2))
            for _ in range(windows):
                x, y = left + int(chance.integers(4, 34)), int(chance.integers(top + 4, SIZE - 12))
                pen.rectangle((x, y, x + 5, y + 7), (brightest, int(brightest * 0.8), int(brightest * 0.4)))
        return picture

    return draw


def _low_key(brightest: int) -> Recipe:
    """A face that one dim light falls on."""

    def draw(chance: Chance) -> Image.Image:
        y, x = np.mgrid[:SIZE, :SIZE] / SIZE
        light = np.exp(-(((x - 0.4) / 0.16) ** 2 + ((y - 0.45) / 0.24) ** 2)) * brightest
        shade = np.exp(-(((x - 0.47) / 0.03) ** 2 + ((y - 0.42) / 0.02) ** 2)) * brightest * 0.7
        pixels = np.maximum(light - shade, 0)[..., None] * np.array([1, 0.8, 0.65])
        return _image(pixels + chance.normal(0, 0.6, (SIZE, SIZE, 1)))

    return draw


def _gradient(start: tuple[int, ...], end: tuple[int, ...], *, is_radial: bool = False) -> Recipe:
    def draw(_: Chance) -> Image.Image:
        y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1)
        way = np.clip(np.hypot(x - 0.5, y - 0.5) * 1.4, 0, 1) if is_radial else (x + 2 * y) / 3
        return _image(np.array(start) + way[..., None] * (np.array(end) - np.array(start)))

    return draw


def _lines(count: int, width: int, paper: int = 255, ink: int = 0) -> Recipe:
    def draw(chance: Chance) -> Image.Image:
        picture = Image.new("RGB", (SIZE, SIZE), (paper,) * 3)
        pen = ImageDraw.Draw(picture)
        for _ in range(count):
            points = [tuple(int(v) for v in chance.integers(10, SIZE - 10, 2)) for _ in range(4)]
            pen.line(points, (ink,) * 3, width, joint="curve")
        return picture

    return draw


def _hatching(step: int) -> Recipe:
    def draw(chance: Chance) -> Image.Image:
        picture = Image.new("L", (SIZE, SIZE), 255)
        pen = ImageDraw.Draw(picture)
        for start in range(-SIZE, SIZE, step):
            pen.line((start, 0, start + SIZE, SIZE), 0, 1)
        pen.ellipse((90, 70, 290, 310), 255)
        for start in range(60, 330, step * 2):
            pen.line((90 + int(chance.integers(0, 9)), start, 290, start), 0, 1)
        return picture

    return draw


def _snowfield(drift: float, base: float = 243) -> Recipe:
    def draw(chance: Chance) -> Image.Image:
        pixels = base + (_fractal(chance, 1.6) - 0.5) * drift + chance.normal(0, 1, (SIZE, SIZE))
        return _image(pixels[..., None] * np.array([0.985, 0.99, 1.0]))

    return draw


def _snowfall(flakes: int) -> Recipe:
    def draw(chance: Chance) -> Image.Image:
        picture = _image(70 + _fractal(chance, 1.4)[..., None] * np.array([60, 70, 90]))
        pen = ImageDraw.Draw(picture)
        for _ in range(flakes):
            x, y = chance.integers(0, SIZE, 2)
            radius = float(chance.uniform(0.5, 2.5))
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), (235, 238, 245))
        return picture

    return draw


def _fog(chance: Chance) -> Image.Image:
    y = np.linspace(0, 1, SIZE)[:, None]
    pixels = 190 + 12 * y + (_fractal(chance, 1.8) - 0.5) * 10
    return _image(np.repeat(pixels[..., None], 3, axis=2))


def _text(chance: Chance) -> Image.Image:
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(picture)
    letters = np.array(list("etaoin shrdlu "))
    for top in range(8, SIZE - 8, 13):
        pen.text((8, top), "".join(chance.choice(letters, 58)), fill=(20, 20, 20))
    return picture


def _checks(cell: int, colors: tuple[int, int]) -> Recipe:
    def draw(_: Chance) -> Image.Image:
        y, x = np.mgrid[:SIZE, :SIZE] // cell
        return _image(np.where((x + y) % 2, *colors)[..., None].repeat(3, axis=2))

    return draw


def _code(chance: Chance) -> Image.Image:
    """As a QR code: black and white cells at random, within a white margin."""
    cells = Image.fromarray((chance.integers(0, 2, (41, 41)) * 255).astype(np.uint8))
    picture = Image.new("L", (SIZE, SIZE), 255)
    picture.paste(cells.resize((328, 328), Image.Resampling.NEAREST), (28, 28))
    return picture


def _confetti(chance: Chance) -> Image.Image:
    picture = Image.new("RGB", (SIZE, SIZE), (245, 240, 230))
    pen = ImageDraw.Draw(picture)
    for _ in range(900):
        x, y = chance.integers(0, SIZE, 2)
        size = int(chance.integers(3, 9))
        pen.rectangle((x, y, x + size, y + size), tuple(int(v) for v in chance.integers(0, 256, 3)))
    return picture


def _mosaic(cell: int) -> Recipe:
    """A scene in tiles, as an artist lays it: the colours of neighbours are alike."""

    def draw(chance: Chance) -> Image.Image:
        scene = _landscape(1.2)(chance).resize((SIZE // cell,) * 2, Image.Resampling.BOX)
        pixels = np.asarray(scene, float) + chance.normal(0, 10, (SIZE // cell, SIZE // cell, 3))
        return _image(pixels).resize((SIZE, SIZE), Image.Resampling.NEAREST)

    return draw


def _grain(strength: float) -> Recipe:
    """A photograph on fast film: a scene under noise."""

    def draw(chance: Chance) -> Image.Image:
        scene = np.asarray(_landscape(1.3)(chance), float)
        return _image(scene + chance.normal(0, strength, (SIZE, SIZE, 3)))

    return draw


def _gravel(slope: float, soft: float) -> Recipe:
    """Stones, sand, grass: detail everywhere, of nearly one colour."""

    def draw(chance: Chance) -> Image.Image:
        pixels = 60 + _fractal(chance, slope)[..., None] * np.array([130, 120, 100])
        return _image(pixels).filter(ImageFilter.GaussianBlur(soft))

    return draw


def _flowers(chance: Chance) -> Image.Image:
    picture = _image(np.array([40, 110, 40]) + _fractal(chance, 0.8)[..., None] * np.array([50, 60, 40]))
    pen = ImageDraw.Draw(picture)
    for row in np.sort(chance.integers(0, SIZE, 700)):
        x, size = int(chance.integers(0, SIZE)), 1 + 9 * row / SIZE
        color = [(230, 60, 90), (250, 220, 70), (240, 240, 250), (170, 80, 200)][int(chance.integers(0, 4))]
        pen.ellipse((x - size, row - size, x + size, row + size), color)
    return picture


def _portrait(chance: Chance) -> Image.Image:
    back = tuple(int(v) for v in chance.integers(40, 220, 3))
    picture = Image.new("RGB", (SIZE, SIZE), back)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((90, 250, 300, 460), tuple(int(v) for v in chance.integers(20, 200, 3)))
    pen.ellipse((125, 80, 265, 270), (224, 180, 150))
    for x in (165, 225):
        pen.ellipse((x - 9, 150, x + 9, 164), (40, 30, 30))
    pen.arc((165, 195, 225, 230), 10, 170, (150, 60, 60), 4)
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2)), float)
    return _image(soft + chance.normal(0, 3, soft.shape))


def _product(background: int) -> Recipe:
    """A thing on a plain ground, most of which is one colour."""

    def draw(chance: Chance) -> Image.Image:
        picture = Image.new("RGB", (SIZE, SIZE), (background,) * 3)
        pen = ImageDraw.Draw(picture)
        x, y = chance.integers(120, 240, 2)
        shade = tuple(int(v) for v in chance.integers(60, 190, 3))
        pen.rounded_rectangle((x, y, x + 40, y + 60), 8, shade)
        return picture.filter(ImageFilter.GaussianBlur(0.7))

    return draw


def _cutout(chance: Chance) -> Image.Image:
    """A white figure on nothing: only the alpha channel shows it."""
    picture = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    ImageDraw.Draw(picture).ellipse((100, 60, 280, 330), (255, 255, 255, 255))
    return picture


def _bokeh(chance: Chance) -> Image.Image:
    picture = Image.new("RGB", (SIZE, SIZE), (12, 10, 18))
    for _ in range(30):
        layer = Image.new("RGB", picture.size)
        x, y = chance.integers(0, SIZE, 2)
        radius = int(chance.integers(8, 34))
        color = tuple(int(v) for v in chance.integers(20, 120, 3))
        ImageDraw.Draw(layer).ellipse((x - radius, y - radius, x + radius, y + radius), color)
        picture = _image(np.asarray(picture, float) + np.asarray(layer, float))
    return picture.filter(ImageFilter.GaussianBlur(2))


BLACK: list[tuple[str, str, Recipe]] = [
    ("pure", "PNG", _flat((0, 0, 0))),
    ("pure", "JPEG", _flat((0, 0, 0))),
    ("pure", "WEBP", _flat((0, 0, 0))),
    ("gray", "PNG", _flat((0,), "L")),
    ("opaque", "PNG", _flat((0, 0, 0, 255), "RGBA")),
    ("palette", "PNG", _flat((0, 0, 0), "P")),
    ("level-2", "PNG", _flat((2, 2, 2))),
    ("level-4", "PNG", _flat((4, 3, 4))),
    ("jitter-1", "PNG", _flat((0, 0, 0), jitter=1)),
    ("jitter-2", "PNG", _flat((1, 1, 1), jitter=1.5)),
    ("jitter", "JPEG", _flat((1, 1, 1), jitter=1)),
    ("large", "PNG", _flat((0, 0, 0), size=1024)),
]

FLAT: list[tuple[str, str, Recipe]] = [
    ("white", "PNG", _flat((255, 255, 255))),
    ("white", "JPEG", _flat((255, 255, 255))),
    ("gray", "PNG", _flat((128, 128, 128))),
    ("gray-l", "PNG", _flat((128,), "L")),
    ("red", "PNG", _flat((230, 10, 10))),
    ("green", "WEBP", _flat((10, 160, 60))),
    ("navy", "PNG", _flat((0, 0, 60))),
    ("brown", "JPEG", _flat((101, 67, 33))),
    ("jitter-1", "PNG", _flat((120, 130, 140), jitter=1)),
    ("jitter-2", "PNG", _flat((90, 60, 60), jitter=2)),
    ("jitter-4", "PNG", _flat((127, 127, 127), jitter=4)),
    ("jitter", "JPEG", _flat((180, 170, 60), jitter=2)),
    ("nothing", "PNG", _flat((0, 0, 0, 0), "RGBA")),
    ("large", "PNG", _flat((127, 127, 127), size=1024)),
]

NOISE: list[tuple[str, str, Recipe]] = [
    ("uniform", "PNG", _uniform),
    ("uniform", "JPEG", _uniform),
    ("uniform", "WEBP", _uniform),
    ("gaussian-20", "PNG", _gaussian(20)),
    ("gaussian-40", "PNG", _gaussian(40)),
    ("gaussian-80", "PNG", _gaussian(80)),
    ("gaussian-dark", "PNG", _gaussian(40, 30)),
    ("gaussian-bright", "JPEG", _gaussian(50, 220)),
    ("static", "PNG", _static),
    ("static", "JPEG", _static),
    ("salt-and-pepper", "PNG", _salt_and_pepper),
    ("latent-4", "PNG", _latent(4, 0.8)),
    ("latent-8", "PNG", _latent(8, 1.5)),
    ("latent-8-soft", "PNG", _latent(8, 3)),
    ("latent-8", "JPEG", _latent(8, 2)),
    ("latent-8-hard", "WEBP", _latent(8, 0.5)),
]

ORDINARY: list[tuple[str, str, Recipe]] = [
    ("stars-12", "PNG", _stars(12, 255)),
    ("stars-60", "PNG", _stars(60, 200)),
    ("stars-600", "PNG", _stars(600, 255)),
    ("stars-dim", "PNG", _stars(40, 60)),
    ("stars", "JPEG", _stars(60, 220)),
    ("night-windows", "PNG", _night(200, 3)),
    ("night-dim", "PNG", _night(60, 2)),
    ("night-dark", "PNG", _night(36, 0)),
    ("night-darker", "PNG", _night(28, 1)),
    ("night", "JPEG", _night(80, 4)),
    ("night", "WEBP", _night(40, 1)),
    ("low-key-90", "PNG", _low_key(90)),
    ("low-key-40", "PNG", _low_key(40)),
    ("low-key-30", "JPEG", _low_key(30)),
    ("dark-wood", "PNG", _landscape(1.4, 0, 30)),
    ("dark-cave", "JPEG", _landscape(1.6, 2, 40)),
    ("gradient-sky", "PNG", _gradient((60, 110, 200), (200, 220, 240))),
    ("gradient-gray", "PNG", _gradient((100, 100, 100), (130, 130, 130))),
    ("gradient-faint", "PNG", _gradient((200, 200, 205), (225, 222, 220))),
    ("gradient-dark", "PNG", _gradient((2, 2, 6), (30, 24, 40))),
    ("gradient-radial", "PNG", _gradient((250, 240, 200), (90, 40, 120), is_radial=True)),
    ("gradient", "JPEG", _gradient((240, 200, 160), (250, 240, 235))),
    ("lines-1", "PNG", _lines(1, 2)),
    ("lines-6", "PNG", _lines(6, 1)),
    ("lines-30", "PNG", _lines(30, 2)),
    ("lines", "JPEG", _lines(8, 3)),
    ("lines-on-black", "PNG", _lines(5, 1, 0, 255)),
    ("lines-pencil", "PNG", _lines(12, 1, 250, 170)),
    ("hatching-4", "PNG", _hatching(4)),
    ("hatching-3", "PNG", _hatching(3)),
    ("hatching", "JPEG", _hatching(5)),
    ("snowfield-40", "PNG", _snowfield(40)),
    ("snowfield-24", "PNG", _snowfield(24)),
    ("snowfield-white", "JPEG", _snowfield(30, 250)),
    ("snowfall-400", "PNG", _snowfall(400)),
    ("snowfall-3000", "PNG", _snowfall(3000)),
    ("snowfall", "JPEG", _snowfall(1500)),
    ("fog", "PNG", _fog),
    ("fog", "JPEG", _fog),
    ("text", "PNG", _text),
    ("text", "JPEG", _text),
    ("checks-2", "PNG", _checks(2, (0, 255))),
    ("checks-8", "PNG", _checks(8, (30, 220))),
    ("checks-32", "PNG", _checks(32, (100, 120))),
    ("code", "PNG", _code),
    ("confetti", "PNG", _confetti),
    ("confetti", "JPEG", _confetti),
    ("mosaic-8", "PNG", _mosaic(8)),
    ("mosaic-16", "PNG", _mosaic(16)),
    ("grain-12", "PNG", _grain(12)),
    ("grain-25", "PNG", _grain(25)),
    ("grain-40", "JPEG", _grain(40)),
    ("gravel", "PNG", _gravel(0.7, 0.8)),
    ("sand", "PNG", _gravel(0.5, 0.9)),
    ("sand-sharp", "PNG", _gravel(0.8, 0.3)),
    ("flowers", "PNG", _flowers),
    ("flowers", "JPEG", _flowers),
    *[("portrait", kind, _portrait) for kind in ("PNG", "JPEG", "WEBP", "PNG")],
    *[(f"landscape-{slope}", "PNG", _landscape(slope)) for slope in (0.9, 1.1, 1.3, 1.6, 2.0)],
    *[("landscape", kind, _landscape(1.2)) for kind in ("JPEG", "WEBP", "JPEG")],
    ("product-white", "PNG", _product(255)),
    ("product-gray", "JPEG", _product(128)),
    ("product-black", "PNG", _product(0)),
    ("cutout", "PNG", _cutout),
    ("bokeh", "PNG", _bokeh),
    ("bokeh", "JPEG", _bokeh),
]


if __name__ == "__main__":
    count = write(Path(sys.argv[1]), range(int(sys.argv[2]) if len(sys.argv) > 2 else 1))
    print(f"{count} pictures in {sys.argv[1]}")
