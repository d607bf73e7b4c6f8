"""What a person does on the page, in words."""

from __future__ import annotations

import hashlib
import re

from playwright.async_api import Locator, Page, expect

#: A file for the page, as the function gets it.
Dropped = dict[str, str]

GIVE = """(element, {event, name, type, base64}) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type}));
  const options = {bubbles: true, cancelable: true};
  element.dispatchEvent(event === "paste"
    ? new ClipboardEvent(event, {...options, clipboardData: data})
    : new DragEvent(event, {...options, dataTransfer: data}));
}"""


class Studio:
    """One workflow, open on the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.tiles = page.locator(".tile")
        self.pictures = page.locator(".result img[src]")
        self.failures = page.locator(".failure")

    async def open(self, name: str) -> None:
        await self.page.goto(f"/#/{name}")
        await expect(self.page.locator(".run")).to_be_visible()

    def field(self, title: str) -> Locator:
        return self.page.get_by_label(title, exact=True).first

    async def give(self, target: Locator, event: str, base64: str) -> None:
        """Drop or paste a PNG."""
        await target.evaluate(
            GIVE, {"event": event, "name": f"{event}.png", "type": "image/png", "base64": base64}
        )

    async def make(self, count: int) -> None:
        for _ in range(count - 1):
            await self.page.get_by_role("button", name="More", exact=True).click()
        await self.page.locator(".run").click()
        await expect(self.tiles).to_have_count(count)

    async def expect_progress(self) -> None:
        """Some run is at work, and has got somewhere."""
        bar = self.page.locator('.tile[data-state="running"] [role=progressbar]').first
        await expect(bar).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d?"))

    async def expect_pictures(self, count: int) -> list[str]:
        """Wait until so many pictures are shown; what they look like, as digests of their pixels."""
        await expect(self.pictures).to_have_count(count)
        found = []
        for index in range(count):
            pixels = await self.pictures.nth(index).evaluate(PIXELS)
            found.append(hashlib.sha256(pixels.encode()).hexdigest())
        return found


PIXELS = """async (image) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  Object.assign(canvas, {width: image.naturalWidth, height: image.naturalHeight});
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL();
}"""
