"""The workflows that come with the agent, run as callers run them, with a look at what comes out.

Those that need no model run on the simulator and on a real ComfyUI alike. Those for Stable Diffusion 1.5 run with a
checkpoint of random weights on a real one, and with stand-ins on the simulator.
"""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageDraw

from agent.library.library import Library
from tests.integration.agent.pictures import b64, encode, look, picture, png
from tests.integration.agent.service import Agent

pytestmark = pytest.mark.real

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

#: What makes the sampled ones quick, as far as each has it.
QUICK = {
    "steps": 2,
    "megapixels": 0.1,
    "checkpoint": "tiny.safetensors",
    "width": 64,
    "height": 64,
    "half_width": 128,
}


async def run(agent: Agent, name: str, **parameters: Any) -> Image.Image:
    answer = await agent.call(
        "POST",
        f"/api/workflows/{name}/run",
        json={"parameters": parameters},
        headers={"Accept": "image/png"},
    )
    assert answer.status == 200, answer.body
    return look(answer.body).convert("RGB")


async def run_quickly(agent: Agent, name: str, **parameters: Any) -> Image.Image:
    shown = (await agent.get(f"/api/workflows/{name}")).ok()["schema"]["properties"]
    quick = {key: value for key, value in QUICK.items() if key in shown}
    if name == "couple-photo":
        quick["height"] = 128
    return await run(agent, name, **{**quick, **parameters})


def color(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def is_near(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 2) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


def halves(left: Any, right: Any, size: tuple[int, int] = (64, 32)) -> str:
    """A picture with two colours, side by side."""
    image = picture(left, size)
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, size[0], size[1]), right)
    return b64(encode(image))


async def test_blend(agent: Agent) -> None:
    pictures = {"first": b64(png(RED, (20, 10))), "second": b64(png(BLUE, (7, 30)))}
    mixed = await run(agent, "blend", **pictures, share=0.25)
    assert mixed.size == (20, 10)
    assert is_near(color(mixed, 5, 5), (191, 0, 64))
    assert is_near(color(await run(agent, "blend", **pictures, mode="screen", share=1), 5, 5), (255, 0, 255))


async def test_sharpen(agent: Agent) -> None:
    gray = halves((100, 100, 100), (150, 150, 150))
    sharp = await run(agent, "sharpen", image=gray, amount=2)
    assert color(sharp, 31, 16)[0] < 95
    assert color(sharp, 32, 16)[0] > 155
    assert is_near(color(sharp, 10, 16), (100, 100, 100))


async def test_blur(agent: Agent) -> None:
    soft = await run(agent, "blur", image=halves(BLACK, WHITE))
    assert 90 < color(soft, 31, 16)[0] < 165
    assert color(soft, 24, 16)[0] < color(soft, 31, 16)[0] < color(soft, 40, 16)[0]


async def test_resize(agent: Agent) -> None:
    flag = halves(RED, BLUE, (300, 100))
    cut = await run(agent, "resize", image=flag, width=50, height=50)
    assert cut.size == (50, 50)
    assert (color(cut, 5, 25), color(cut, 45, 25)) == (RED, BLUE)
    squeezed = await run(agent, "resize", image=flag, width=30, height=70, crop="disabled", method="area")
    assert squeezed.size == (30, 70)


async def test_rotate(agent: Agent) -> None:
    turned = await run(agent, "rotate", image=halves(RED, BLUE), angle="90 degrees")
    assert turned.size == (32, 64)
    assert (color(turned, 16, 5), color(turned, 16, 60)) == (RED, BLUE)


async def test_posterize(agent: Agent) -> None:
    gradient = Image.linear_gradient("L").convert("RGB")
    few = await run(agent, "posterize", image=b64(encode(gradient)), colors=4)
    assert few.size == gradient.size
    assert 2 <= len(few.getcolors(10_000) or []) <= 4


async def test_merge_by_mask(agent: Agent) -> None:
    merged = await run(
        agent,
        "merge-by-mask",
        picture=b64(png(RED, (64, 32))),
        second=b64(png(BLUE, (10, 10))),
        mask=halves(BLACK, WHITE),
    )
    assert merged.size == (64, 32)
    assert (color(merged, 10, 16), color(merged, 50, 16)) == (RED, BLUE)


async def test_contact_sheet(agent: Agent) -> None:
    names = dict(zip(("first", "second", "third", "fourth"), (RED, GREEN, BLUE, BLACK), strict=True))
    sheet = await run(
        agent, "contact-sheet", **{name: b64(png(c)) for name, c in names.items()}, paper=0xFFFF00
    )
    assert sheet.size == (648, 648)
    assert color(sheet, 5, 5) == (255, 255, 0)
    found = [color(sheet, x, y) for y in (150, 500) for x in (150, 500)]
    assert found == [RED, GREEN, BLUE, BLACK]


async def test_invert_and_postcard(agent: Agent) -> None:
    assert color(await run(agent, "invert", image=b64(png(RED))), 1, 1) == (0, 255, 255)
    card = await run(agent, "postcard", photo=b64(png(RED)), stamp=b64(png(BLUE)))
    assert (color(card, 100, 100), color(card, 620, 100)) == (RED, BLUE)


def test_each_workflow_without_a_model_has_a_test_here() -> None:
    names = {named.name for named in Library().all() if "no-model" in named.manifest.tags}
    assert names == {
        *("blend", "sharpen", "blur", "resize", "rotate", "posterize", "merge-by-mask", "contact-sheet"),
        *("invert", "postcard"),
    }


async def test_text_to_image(agent: Agent) -> None:
    assert (await run_quickly(agent, "text-to-image", seed=1)).size == (64, 64)


async def test_image_to_image_keeps_the_shape_of_the_photo(agent: Agent) -> None:
    drawn = await run_quickly(agent, "image-to-image", photo=b64(png(RED, (300, 150))), seed=1)
    width, height = drawn.size
    assert abs(width / height - 2) < 0.1
    assert abs(width * height - 100_000) < 10_000


@pytest.mark.parametrize("name", ["inpaint", "replace-background"])
async def test_only_what_the_mask_shows_is_drawn_anew(agent: Agent, name: str) -> None:
    photo = b64(png(RED, (400, 200)))
    drawn = await run_quickly(agent, name, photo=photo, mask=halves(BLACK, WHITE, (400, 200)), seed=1)
    width, height = drawn.size
    kept = drawn.crop((0, 0, width // 2 - 10, height))
    assert kept.getcolors(1) == [(kept.width * kept.height, RED)]
    anew = drawn.crop((width // 2 + 10, 0, width, height))
    assert len(anew.getcolors(1_000_000) or []) > 1


async def test_couple_photo_is_one_picture_of_both(agent: Agent) -> None:
    drawn = await run_quickly(agent, "couple-photo", left=b64(png(RED)), right=b64(png(BLUE)), seed=1)
    assert drawn.size == (256, 128)
