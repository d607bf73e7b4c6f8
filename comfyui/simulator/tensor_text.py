"""Prints a raster as torch prints the tensor that ComfyUI would have in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from comfyui.simulator.raster import Raster

FULL_UP_TO = 1000  #: torch's print threshold: larger tensors show only their edges
EDGE = 3

Nested: TypeAlias = "float | list[Nested]"


def tensor_text(raster: Raster) -> str:
    shape = raster.shape
    total = 1
    for length in shape:
        total *= length
    cut = total > FULL_UP_TO
    values = _edges(raster, cut=cut)
    flat = _flatten(values)
    whole = all(value == int(value) for value in flat)
    words = [_word(value, whole=whole) for value in flat]
    width = max(map(len, words), default=0)
    return f"tensor({_format(values, shape, width, len('tensor('), cut=cut, whole=whole)})"


def _edges(raster: Raster, *, cut: bool) -> list[Nested]:
    """Nested lists of the values that are shown: all, or the first and last three along each axis."""
    width, height = raster.size
    frames, rows, columns = (_shown(n, cut=cut) for n in (len(raster.frames), height, width))

    def pixel(index: int, x: int, y: int) -> Nested:
        values = [float(band.getpixel((x, y))) for band in raster.frames[index]]  # type: ignore[arg-type]  # mode F
        return values[0] if raster.is_mask else list(values)

    return [[[pixel(index, x, y) for x in columns] for y in rows] for index in frames]


def _shown(length: int, *, cut: bool) -> list[int]:
    if not cut or length <= 2 * EDGE:
        return list(range(length))
    return [*range(EDGE), *range(length - EDGE, length)]


def _flatten(values: Nested) -> list[float]:
    if isinstance(values, float):
        return [values]
    return [value for part in values for value in _flatten(part)]


def _word(value: float, *, whole: bool) -> str:
    return f"{value:.0f}." if whole else f"{value:.4f}"


def _format(
    values: Nested, shape: tuple[int, ...], width: int, indent: int, *, cut: bool, whole: bool
) -> str:
    if isinstance(values, float):
        return _word(values, whole=whole).rjust(width)
    inner = [_format(part, shape[1:], width, indent + 1, cut=cut, whole=whole) for part in values]
    if cut and shape[0] > 2 * EDGE:
        inner.insert(EDGE, "..." if len(shape) > 1 else " ...")
    if len(shape) == 1:
        return f"[{', '.join(inner)}]"
    blank = "\n" * (len(shape) - 1) + " " * (indent + 1)
    return f"[{f',{blank}'.join(inner)}]"
