"""What AUTOMATIC1111's clients write, without a server."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agent.api.facades import automatic1111_input
from agent.api.facades.automatic1111_input import Change, Drawing, check_call, check_options
from agent.api.facades.automatic1111_pictures import prepare_pictures
from agent.api.facades.automatic1111_prompt import Lora, read_prompt
from agent.api.facades.automatic1111_samplers import choose
from agent.errors import AgentError, InvalidInput, InvalidParameter


@pytest.mark.parametrize(
    ("sampler", "scheduler", "found"),
    [
        ("Euler a", None, ("euler_ancestral", "normal")),
        ("k_euler_a", "automatic", ("euler_ancestral", "normal")),
        ("DPM++ 2M", None, ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "Uniform", ("dpmpp_2m", "normal")),
        ("DPM++ 2M Karras", None, ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", "Automatic", ("dpmpp_2m", "karras")),
        ("DPM++ SDE Karras", "SGM Uniform", ("dpmpp_sde", "sgm_uniform")),
        ("DPM++ 2M SDE Exponential", None, ("dpmpp_2m_sde", "exponential")),
        ("DPM++ 2M SGMUniform", None, ("dpmpp_2m", "sgm_uniform")),
        ("k_dpmpp_2s_a_ka", None, ("dpmpp_2s_ancestral", "karras")),
        ("LMS Karras", None, ("lms", "karras")),
        ("dpm++ 2m sde heun", None, ("dpmpp_2m_sde_heun", "exponential")),
        ("DDIM", None, ("ddim", "ddim_uniform")),
        ("uni_pc", "kl_optimal", ("uni_pc", "kl_optimal")),
        (None, "karras", (None, "karras")),
        (None, None, (None, None)),
    ],
)
def test_samplers_are_known_by_all_their_names(sampler: Any, scheduler: Any, found: Any) -> None:
    assert choose(sampler, scheduler) == found


@pytest.mark.parametrize(
    ("sampler", "scheduler"), [("PLMS", None), ("Karras", None), ("Euler", "Turbo"), ("_ka", None)]
)
def test_samplers_that_comfyui_has_not_are_refused(sampler: str, scheduler: str | None) -> None:
    with pytest.raises(InvalidParameter, match="none of"):
        choose(sampler, scheduler)


@pytest.mark.parametrize(
    ("prompt", "words", "lora"),
    [
        ("a cat", "a cat", None),
        ("a <lora:My Style v2:0.8> cat", "a  cat", Lora("My Style v2", 0.8)),
        ("<lora:x>", "", Lora("x", 1.0)),
        ("<lyco:x:-0.5>cat", "cat", Lora("x", -0.5)),
        ("<lora:x:te=0.5:unet=0.5>", "", Lora("x", 0.5)),
        ("a < b > c <3", "a < b > c <3", None),
    ],
)
def test_loras_are_read_out_of_the_prompt(prompt: str, words: str, lora: Lora | None) -> None:
    assert read_prompt(prompt) == (words, lora)
    assert read_prompt(prompt, is_used=False) == (words, None)


@pytest.mark.parametrize(
    "prompt",
    ["<lora:x:nan>", "<lora:x:>", "<lora:x:0.5:0.7>", "<lora:x:dyn=3>", "<hypernet:x>", "<lora:x><lora:y>"],
)
def test_loras_that_would_not_do_as_written_are_refused(prompt: str) -> None:
    with pytest.raises(InvalidParameter):
        read_prompt(prompt)


@pytest.mark.parametrize("name", ["prompt", "negative_prompt", "sampler_name", "scheduler"])
def test_texts_have_an_end_for_they_come_back_with_each_picture(name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_call(Drawing, {name: "x" * 32_001})
    assert caught.value.facts["parameter"] == name
    assert check_call(Drawing, {"prompt": "x" * 32_000}).prompt


def encoded(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def decoded(uri: str | None) -> Image.Image:
    assert uri is not None
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.load()
    return image


def prepared(
    image: Image.Image, mask: Image.Image | None = None, **how: Any
) -> tuple[Image.Image, Image.Image | None]:
    more = {} if mask is None else {"mask": encoded(mask)}
    found = prepare_pictures(check_call(Change, {"init_images": [encoded(image)], **more, **how}))
    return decoded(found.image), decoded(found.mask) if found.mask else None


def test_pictures_are_stretched_cropped_or_filled() -> None:
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (0, 0, 64, 8))
    asked = {"width": 128, "height": 64}
    for mode, corner, middle in ((0, "blue", "blue"), (1, "red", "red"), (2, "blue", "blue")):
        made, _ = prepared(image, resize_mode=mode, **asked)
        assert made.size == (128, 64)
        colors = {"red": (255, 0, 0), "blue": (0, 0, 255)}
        assert (made.getpixel((0, 0)), made.getpixel((64, 0))) == (colors[corner], colors[middle])
    assert prepared(image, width=77, height=90)[0].size == (72, 88)
    assert prepared(Image.new("RGB", (77, 90)))[0].size == (77, 90), "nothing was asked for"


def test_transparency_is_white_in_a_picture_and_kept_in_a_mask() -> None:
    half = Image.new("RGBA", (64, 64), (9, 9, 9, 255))
    half.paste((0, 0, 0, 0), (0, 0, 32, 64))
    made, mask = prepared(half, half, mask_blur=0)
    assert (made.getpixel((0, 0)), made.getpixel((40, 0))) == ((255, 255, 255), (9, 9, 9))
    assert mask is not None
    assert (mask.getpixel((0, 0)), mask.getpixel((40, 0))) == ((0, 0, 0), (255, 255, 255))
    _, inverted = prepared(half, half, mask_blur_x=0, mask_blur_y=0, inpainting_mask_invert=1)
    assert inverted is not None
    assert inverted.getpixel((0, 0)) == (255, 255, 255)
    _, blurred = prepared(half, half, mask_blur=8)
    assert blurred is not None
    assert 0 < blurred.convert("L").getpixel((30, 30)) < 255  # type: ignore[operator] # of one channel


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "I;16", "RGBA"])
def test_pictures_of_any_mode_are_taken_or_refused(mode: str) -> None:
    with suppress(InvalidInput):
        made, mask = prepared(Image.new(mode, (16, 16)), Image.new(mode, (16, 16)))
        assert (made.mode, mask and mask.mode) == ("RGB", "RGB")


NAMES = [*Change.model_fields, *automatic1111_input.REFUSED, *automatic1111_input.IGNORED]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), st.text(max_size=60))
def test_whatever_a_caller_sends_is_understood_or_refused(body: dict[str, Any], prompt: str) -> None:
    for kind in (Drawing, Change):
        with suppress(AgentError):
            call = check_call(kind, body)
            choose(call.sampler_name, call.scheduler)
            check_options(call.override_settings)
            if isinstance(call, Change):
                prepare_pictures(call)
    with suppress(AgentError):
        read_prompt(prompt)
