"""Failed pictures are told from those that are only dark, pale, plain or full of detail."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from agent.safety.failed_images import Failure, Limits, find_failure
from agent.safety.look import look_at
from agent.safety.scoring import as_table, scores
from tests.labelled.pictures import Drawing, drawings

#: Drawn with other random numbers than those that the limits were set by.
UNSEEN_SERIES = 1

DRAWINGS = list(drawings(UNSEEN_SERIES))


def found_in(data: bytes, limits: Limits | None = None) -> str:
    failure = look_at(data, limits or Limits(), wants_views=False).failure
    return failure.category if failure else ""


def encoded(picture: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.name)
def test_labelled_picture_is_judged_as_it_is(drawing: Drawing) -> None:
    assert found_in(drawing.draw().data) == drawing.label


def test_set_is_large_and_varied() -> None:
    labels = Counter(drawing.label for drawing in DRAWINGS)
    assert len(DRAWINGS) >= 100
    assert min(labels.values()) >= 12
    assert len({drawing.name for drawing in DRAWINGS}) == len(DRAWINGS)


def test_limits_decide() -> None:
    dim, pale = Image.new("RGB", (64, 64), (40, 40, 40)), Image.new("RGB", (64, 64), (200, 200, 200))
    dim.paste((44, 44, 44), (0, 0, 32, 64))
    pale.paste((205, 205, 205), (0, 0, 32, 64))
    assert find_failure(dim, Limits()) is None
    assert find_failure(dim, Limits(black_level=44)) == Failure("black", 1 - 44 / 255)
    assert find_failure(pale, Limits(flat_range=5)) == Failure("flat", 1 - 5 / 255)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8))
    found = find_failure(noise, Limits())
    assert found is not None
    assert found.category == "noise"
    assert find_failure(noise, Limits(noise_score=1.0)) is None


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animation_has_failed_only_if_all_of_it_has(kind: str) -> None:
    black = Image.new("RGB", (64, 64))
    gray = [Image.new("RGB", (64, 64), (n, n, n)) for n in range(9)]
    bright = [Image.linear_gradient("L").resize((64, 64)).rotate(90 * n).convert("RGB") for n in range(4)]
    fade_in = encoded(black, kind, save_all=True, append_images=bright, duration=50)
    assert found_in(fade_in) == ""
    assert found_in(encoded(black, kind, save_all=True, append_images=gray, duration=50)) == "black"


def test_deep_pixels_are_scaled_and_not_cut_off() -> None:
    ramp = np.linspace(0, 65_535, 128 * 128).reshape(128, 128)
    assert found_in(encoded(Image.fromarray(ramp.astype(np.uint16)))) == ""
    assert found_in(encoded(Image.fromarray(np.zeros((64, 64), np.uint16)))) == "black"


def test_tiny_picture_is_judged_too() -> None:
    assert found_in(encoded(Image.new("RGB", (1, 1), (9, 9, 9)))) == "black"
    assert found_in(encoded(Image.new("RGB", (3, 1), (90, 9, 9)))) == "flat"


def test_scores_of_known_and_found() -> None:
    whole, black, noise = scores(
        [("black", "black"), ("black", ""), ("", "noise"), ("noise", "black"), ("", "")]
    )
    assert (whole.known, whole.found, whole.right) == (3, 3, 2)
    assert (black.precision, black.recall) == (0.5, 0.5)
    assert (noise.precision, noise.recall) == (0.0, 0.0)
    (empty,) = scores([("", "")])
    assert (empty.precision, empty.recall) == (None, None)
    assert as_table([whole])[1].split() == ["anything", "3", "3", "2", "66.7%", "66.7%"]
