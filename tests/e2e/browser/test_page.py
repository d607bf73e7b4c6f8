"""The page at /: choose, fill in, run, look."""

from __future__ import annotations

import base64
import io
import json
import re
import wave
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Browser, Page, expect

from tests.e2e.browser.service import Service
from tests.e2e.browser.studio import Studio

PHOTO = Image.new("RGB", (60, 40), (200, 30, 60))
SCROLLS_SIDEWAYS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"

IS_UNCOVERED = """(element) => {
  const {left, top, height} = element.getBoundingClientRect();
  return document.elementFromPoint(left + 5, top + height / 2) === element;
}"""


def as_base64(file: io.BytesIO) -> str:
    return base64.b64encode(file.getvalue()).decode()


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return as_base64(file)


async def test_workflows_are_offered_with_what_is_missing(page: Page) -> None:
    await page.goto("/")
    card = page.locator(".card", has=page.get_by_role("heading", name="Negative"))
    await expect(card).to_contain_text("Inverts the colours of a picture")
    lacking = page.locator(".card.lacking").filter(has_text="Flux")
    await expect(lacking).to_contain_text("t5xxl_fp16.safetensors")
    await page.get_by_role("searchbox").fill("inverts")
    await expect(page.locator(".card")).to_have_count(1)
    await card.click()
    await expect(page).to_have_url(re.compile("#/invert$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Negative")


@pytest.mark.parametrize("how", ["click", "drop", "paste"])
async def test_a_picture_is_given_and_comes_back_changed(page: Page, picture_file: Path, how: str) -> None:
    studio = Studio(page)
    await studio.open("invert")
    zone = page.locator(".dropzone")
    if how == "click":
        async with page.expect_file_chooser() as chooser:
            await zone.click()
        await (await chooser.value).set_files(picture_file)
    else:
        await studio.give(zone if how == "drop" else page.locator("body"), how, encoded(PHOTO))
    await expect(zone.locator("img")).to_be_visible()
    await studio.make(1)
    await studio.expect_pictures(1)
    corner = await studio.pictures.first.evaluate(
        """async (image) => {
          await image.decode();
          const context = document.createElement("canvas").getContext("2d");
          context.drawImage(image, 0, 0);
          return [...context.getImageData(1, 1, 1, 1).data];
        }"""
    )
    assert corner == pytest.approx([55, 225, 195, 255], abs=2)


async def test_what_is_missing_is_asked_for(page: Page) -> None:
    studio = Studio(page)
    await studio.open("invert")
    await page.locator(".run").click()
    await expect(page.get_by_text("This is needed.")).to_be_visible()
    await expect(studio.tiles).to_have_count(0)


async def test_stand_ins_are_called_so_in_every_view_and_language(page: Page) -> None:
    notice = page.get_by_role("note").filter(has=page.locator("[data-t='app.simulated']"))
    await page.goto("/")
    await expect(notice).to_contain_text("No ComfyUI is connected")
    await page.get_by_label("Language").select_option("zh")
    await expect(notice).to_contain_text("未连接 ComfyUI")
    await Studio(page).open("invert")
    await expect(notice).to_be_visible()


async def test_nothing_is_said_of_stand_ins_where_a_comfyui_works(page: Page) -> None:
    engine = {"state": "ready", "restarts": 0, "simulated": False}
    await page.route("**/healthz", lambda route: route.fulfill(json={"status": "ok", "engine": engine}))
    async with page.expect_request_finished(lambda request: request.url.endswith("/healthz")):
        await page.goto("/")
    await expect(page.locator(".card").first).to_be_visible()
    await expect(page.locator(".simulated")).to_have_count(0)


async def test_what_cannot_run_here_says_so_at_the_button(page: Page) -> None:
    studio = Studio(page)
    await studio.open("text-to-image-flux")
    await expect(page.locator(".run")).to_be_disabled()
    await expect(page.locator(".run")).to_have_accessible_description(re.compile("t5xxl_fp16.safetensors"))
    notice = page.locator(".run-bar").get_by_text("This cannot run here. Missing:")
    await expect(notice).to_be_in_viewport(ratio=1)
    await expect(page.locator(".run")).to_be_in_viewport(ratio=1)
    await page.keyboard.press("Control+Enter")
    await expect(studio.tiles).to_have_count(0)


async def test_four_runs_at_once_make_four_different_pictures(page: Page) -> None:
    studio = Studio(page)
    await studio.open("text-to-image")
    await studio.field("Prompt").fill("a red fox")
    await studio.field("Steps").fill("3")
    await studio.field("Width").fill("128")
    await studio.field("Height").fill("64")
    await studio.make(4)
    assert len(set(await studio.expect_pictures(4))) == 4
    await expect(page.locator("#live")).to_have_text(re.compile(r"Run \d is finished"))
    feed, last = await page.locator(".feed").bounding_box(), await studio.tiles.last.bounding_box()
    assert feed is not None
    assert last is not None
    assert last["x"] + last["width"] == pytest.approx(feed["x"] + feed["width"], abs=2)


async def test_a_seed_is_kept_to_the_last_digit(page: Page) -> None:
    studio = Studio(page)
    await studio.open("text-to-image")
    await studio.field("Steps").fill("1")
    await studio.field("Seed").fill("18446744073709551615")
    async with page.expect_request("**/api/workflows/text-to-image/run") as request:
        await studio.make(1)
    assert b"18446744073709551615" in ((await request.value).post_data_buffer or b"")
    await studio.expect_pictures(1)
    await studio.field("Seed").fill("18446744073709551616")
    await page.locator(".run").click()
    await expect(page.get_by_text("A seed is a whole number")).to_be_visible()
    await page.get_by_role("button", name="Roll a seed").click()
    await expect(studio.field("Seed")).to_have_value(re.compile(r"^\d{1,10}$"))


async def test_pictures_are_looked_at_by_keyboard_and_used_again(page: Page) -> None:
    studio = Studio(page)
    await studio.open("text-to-image")
    await studio.field("Steps").fill("1")
    await studio.make(2)
    await studio.expect_pictures(2)
    viewer = page.locator("#viewer")
    await page.locator(".picture").first.focus()
    await page.keyboard.press("Enter")
    await expect(viewer).to_be_visible()
    await expect(viewer).to_contain_text("1 / 2")
    await page.keyboard.press("ArrowRight")
    await expect(viewer).to_contain_text("2 / 2")
    await page.keyboard.press("ArrowRight")
    await expect(viewer).to_contain_text("2 / 2")
    async with page.expect_download() as download:
        await viewer.get_by_role("button", name="Download").click()
    assert (await download.value).suggested_filename.endswith(".png")
    await page.keyboard.press("Escape")
    await expect(viewer).to_be_hidden()
    await expect(page.locator(".picture").first).to_be_focused()

    await page.locator(".result").first.get_by_role("button", name="Use as input").click()
    await expect(page.get_by_text("This workflow takes no picture")).to_be_visible()
    await page.get_by_role("link", name=re.compile("Negative")).click()
    await expect(page.locator(".dropzone img")).to_be_visible()


async def test_a_painted_mask_reaches_the_workflow(page: Page) -> None:
    studio = Studio(page)
    await studio.open("merge-by-mask")
    zones = page.locator(".dropzone")
    await studio.give(zones.nth(0), "drop", encoded(Image.new("RGB", (80, 80), (255, 0, 0))))
    await studio.give(zones.nth(1), "drop", encoded(Image.new("RGB", (80, 80), (0, 0, 255))))
    canvas = page.locator(".mask-stage canvas")
    await expect(canvas).to_be_visible()
    await page.locator(".run").click()
    await expect(page.get_by_text("Paint over the part that shall change.")).to_be_visible()

    await page.get_by_label("Brush size").fill("20")
    await _paint(page, 0.75)  # what is undone again
    await page.get_by_role("button", name="Undo").click()
    await _paint(page, 0.25)
    await studio.make(1)
    await studio.expect_pictures(1)
    look = """async (image) => {
      await image.decode();
      const canvas = document.createElement("canvas");
      Object.assign(canvas, {width: 80, height: 80});
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      return [20, 60].map((y) => [...context.getImageData(40, y, 1, 1).data].slice(0, 3));
    }"""
    assert await studio.pictures.first.evaluate(look) == [[0, 0, 255], [255, 0, 0]]


async def test_a_mask_is_painted_with_the_keyboard(page: Page) -> None:
    studio = Studio(page)
    await studio.open("inpaint")
    await studio.give(page.locator(".dropzone").first, "drop", encoded(Image.new("RGB", (80, 80))))
    canvas = page.locator(".mask-stage canvas")
    await expect(canvas).to_be_visible()
    hint = page.get_by_text("Arrow keys move the brush")
    await expect(hint).to_be_hidden()
    await page.get_by_label("Brush size").fill("20")
    await page.get_by_role("button", name="Clear").focus()
    await page.keyboard.press("Tab")
    await expect(canvas).to_be_focused()
    await expect(hint).to_be_visible()
    # From the middle to the left edge, painting from there on, then a spot on its own.
    for _ in range(9):
        await page.keyboard.press("ArrowLeft")
    await page.keyboard.down(" ")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.up(" ")
    for _ in range(3):
        await page.keyboard.press("ArrowRight")
    await page.keyboard.press(" ")
    painted = """(canvas) => [[8, 40], [20, 40], [40, 40], [70, 40], [40, 70]].map(([x, y]) => {
      const scale = canvas.width / 80;
      return canvas.getContext("2d").getImageData(x * scale, y * scale, 1, 1).data[3] > 0;
    })"""
    assert await canvas.evaluate(painted) == [True, True, True, False, False]
    await page.keyboard.press("Control+z")
    assert await canvas.evaluate(painted) == [True, True, False, False, False]
    box = await canvas.bounding_box()
    assert box is not None
    await page.mouse.click(box["x"] + box["width"] * 70 / 80, box["y"] + box["height"] / 2)
    assert await canvas.evaluate(painted) == [True, True, False, True, False], "a click is a spot, too"
    for _ in range(10):
        await page.keyboard.press("ArrowDown")
    await expect(page.locator(".mask-ring")).to_be_in_viewport(ratio=0.5)


async def test_what_is_wrong_below_a_tall_picture_comes_into_view(page: Page) -> None:
    studio = Studio(page)
    await studio.open("inpaint")
    await studio.give(page.locator(".dropzone").first, "drop", encoded(Image.new("RGB", (40, 80))))
    canvas = page.locator(".mask-stage canvas")
    await expect(canvas).to_be_visible()
    await page.locator(".panel").evaluate("(panel) => panel.scrollTo(0, 0)")
    await page.locator(".run").click()
    complaint = page.get_by_text("Paint over the part that shall change.")
    await expect(complaint).to_be_in_viewport(ratio=1)
    assert await complaint.evaluate(IS_UNCOVERED)
    await expect(canvas).to_be_focused()


async def _paint(page: Page, height: float) -> None:
    """A stroke from left to right, at this share of the picture's height."""
    canvas = page.locator(".mask-stage canvas")
    await canvas.scroll_into_view_if_needed()
    box = await canvas.bounding_box()
    assert box is not None
    y = box["y"] + height * box["height"]
    await page.mouse.move(box["x"] + 5, y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] - 5, y, steps=4)
    await page.mouse.up()


async def test_a_graph_is_pasted_and_run(page: Page) -> None:
    studio = Studio(page)
    await studio.open("~own")
    graph = (
        '{"1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 255}},'
        ' "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "own"}}}'
    )
    await studio.field("Workflow (API format)").fill(graph)
    await studio.make(1)
    await studio.expect_pictures(1)
    await studio.field("Workflow (API format)").fill("{")
    await page.locator(".run").click()
    await expect(page.get_by_text("This is not JSON")).to_be_visible()


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ('{"nodes": [], "links": [], "version": 0.4}', "This is no workflow in API format"),
        ('{"1": {"class_type": "NoSuchNode", "inputs": {}}}', "A node of this workflow is not installed"),
        ('{"1": {"class_type": "SaveImage", "inputs": {}}}', "ComfyUI refused the workflow"),
    ],
)
async def test_a_bad_workflow_is_explained(page: Page, graph: str, words: str) -> None:
    studio = Studio(page)
    await studio.open("~own")
    await studio.field("Workflow (API format)").fill(graph)
    await studio.make(1)
    await expect(studio.failures).to_contain_text(words)


async def test_a_failed_node_is_named(page: Page) -> None:
    studio = Studio(page)
    await studio.open("~own")
    await studio.field("Workflow (API format)").fill(
        '{"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},'
        ' "2": {"class_type": "LabRaise", "inputs": {"image": ["1", 0], "message": "<b>out of paint</b>"},'
        ' "_meta": {"title": "My <i>node</i>"}},'
        ' "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}}}'
    )
    await studio.make(1)
    await expect(studio.failures).to_contain_text("A step of the workflow failed")
    await expect(studio.failures).to_contain_text("My <i>node</i>")
    await expect(studio.failures).to_contain_text("<b>out of paint</b>")


async def test_texts_sounds_and_what_cannot_be_shown(page: Page) -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 1, 8000, 4000, "NONE", ""))
        file.writeframes(bytes([128]) * 4000)
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "<img src=x onerror=alert(1)>"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        "3": {"class_type": "LoadAudio", "inputs": {"audio": "data:audio/wav;base64," + as_base64(sound)}},
        "4": {"class_type": "SaveAudio", "inputs": {"audio": ["3", 0], "filename_prefix": "sound"}},
        "5": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
        },
        "6": {
            "class_type": "SaveWEBM",
            "inputs": {"images": ["5", 0], "filename_prefix": "v", "codec": "vp9", "fps": 24, "crf": 32},
        },
    }
    studio = Studio(page)
    await studio.open("~own")
    await studio.field("Workflow (API format)").fill(json.dumps(graph))
    await studio.make(1)
    await expect(studio.tiles.locator("pre")).to_have_text("<img src=x onerror=alert(1)>")
    await expect(studio.tiles.locator("audio")).to_have_js_property("duration", 0.5)
    # The simulator's video is none that a browser could play.
    await expect(studio.tiles).to_contain_text("The browser cannot show this file.")
    await expect(studio.tiles.get_by_role("button", name="Download").last).to_be_visible()


async def test_the_page_speaks_three_languages(page: Page) -> None:
    await page.goto("/")
    await expect(page.get_by_role("heading", level=1)).to_have_text("What would you like to make?")
    await page.get_by_label("Language").select_option("ja")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("何を作りますか")
    await expect(page.get_by_role("heading", name="ネガポジ反転")).to_be_visible()
    await page.get_by_label("言語").select_option("zh")
    await expect(page.get_by_role("heading", name="反色")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("想做点什么")
    await expect(page.locator("html")).to_have_attribute("lang", "zh")


async def test_a_browser_s_own_language_and_colours_come_first(browser: Browser, service: Service) -> None:
    context = await browser.new_context(base_url=service.url, locale="ja-JP", color_scheme="dark")
    page = await context.new_page()
    await page.goto("/")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("何を作りますか")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page.locator("body")).to_have_css("background-color", "rgb(19, 21, 19)")
    await page.locator("#theme").click()
    await expect(page.locator("body")).to_have_css("background-color", "rgb(247, 246, 242)")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    await context.close()


async def test_a_phone_never_scrolls_sideways(page: Page) -> None:
    studio = Studio(page)
    await page.set_viewport_size({"width": 360, "height": 740})
    for language in ("en", "ja", "zh"):
        await page.goto("/#/")
        await page.locator("#language").select_option(language)
        await expect(page.locator(".card.lacking").first).to_be_visible()
        assert not await page.evaluate(SCROLLS_SIDEWAYS), language
        await studio.open("inpaint")
        assert not await page.evaluate(SCROLLS_SIDEWAYS), language
    await page.locator("#language").select_option("en")
    await studio.open("text-to-image")
    await studio.field("Prompt").fill("a" * 400)
    await studio.field("Steps").fill("1")
    await studio.make(3)
    await studio.expect_pictures(3)
    assert not await page.evaluate(SCROLLS_SIDEWAYS)
