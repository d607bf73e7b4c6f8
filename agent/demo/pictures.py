"""The pictures that the demo sends, drawn on the spot, and what it knows about those that come back."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageChops, ImageDraw

SKY_TOP, SKY_BOTTOM = (38, 70, 132), (252, 183, 120)
SUN, SEA, HILL = (255, 236, 190), (44, 82, 120), (30, 48, 70)
STAMP_PAPER, STAMP_INK = (250, 240, 214), (178, 42, 52)
PAPER = (245, 245, 236)  #: the colour of node "Paper" in postcard.json

#: Converting to floats and back, and scaling, may round.
TOLERANCE = 2


class WrongPicture(Exception):
    """A picture came back that is not what the workflow makes of its inputs."""


def draw_photo() -> Image.Image:
    """A sunset over the sea, 640 x 400."""
    sky = Image.new("RGB", (1, 2))
    sky.putpixel((0, 0), SKY_TOP)
    sky.putpixel((0, 1), SKY_BOTTOM)
    photo = sky.resize((640, 400), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(photo)
    draw.ellipse((250, 170, 370, 290), fill=SUN)
    draw.rectangle((0, 280, 640, 400), fill=SEA)
    for step in range(6):
        y = 292 + 18 * step
        draw.line((310 - 60 + 8 * step, y, 310 + 60 - 8 * step, y), fill=SUN, width=4)
    draw.polygon([(0, 400), (0, 250), (90, 210), (170, 280), (230, 400)], fill=HILL)
    return photo


def draw_stamp() -> Image.Image:
    """A stamp with a heart, 96 x 112."""
    stamp = Image.new("RGB", (96, 112), STAMP_PAPER)
    draw = ImageDraw.Draw(stamp)
    draw.rectangle((5, 5, 90, 106), outline=STAMP_INK, width=2)
    draw.ellipse((20, 30, 50, 60), fill=STAMP_INK)
    draw.ellipse((46, 30, 76, 60), fill=STAMP_INK)
    draw.polygon([(21, 51), (75, 51), (48, 88)], fill=STAMP_INK)
    return stamp


def to_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def open_picture(data: bytes) -> Image.Image:
    """Decode all of it. Raises WrongPicture if it is broken."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            return picture.convert("RGB")
    except Exception as exc:  # Pillow raises whatever it meets in a broken file
        raise WrongPicture(f"the file is no whole PNG ({exc})") from exc


def check_negative(picture: Image.Image) -> None:
    """Every pixel is the opposite of the photo's."""
    photo = draw_photo()
    _check_size(picture, photo.size)
    difference = ImageChops.difference(picture, ImageChops.invert(photo))
    counts = difference.histogram()  # 256 levels of each band
    if any(sum(counts[start + TOLERANCE + 1 : start + 256]) for start in (0, 256, 512)):
        raise WrongPicture("it is not the negative of the photo")


def check_postcard(picture: Image.Image) -> None:
    """Paper, photo and stamp lie where postcard.json puts them."""
    _check_size(picture, (720, 480))
    known = {
        "paper": ((8, 8), PAPER),
        "sea of the photo": ((500, 440), SEA),
        "sun of the photo": ((348, 260), SUN),
        "heart of the stamp": ((628, 104), STAMP_INK),
        "edge of the stamp": ((582, 46), STAMP_PAPER),
    }
    for what, (place, wanted) in known.items():
        _check_pixel(picture, what, place, wanted)


def check_generated(picture: Image.Image) -> None:
    """Nobody knows the pixels of a generated picture, but it has its size and is not one flat colour."""
    _check_size(picture, (512, 512))
    if picture.getcolors(64) is not None:
        raise WrongPicture("it is blank")


def _check_size(picture: Image.Image, wanted: tuple[int, int]) -> None:
    if picture.size != wanted:
        raise WrongPicture(f"it is {picture.width} x {picture.height}, not {wanted[0]} x {wanted[1]}")


def _check_pixel(
    picture: Image.Image, what: str, place: tuple[int, int], wanted: tuple[int, int, int]
) -> None:
    found: Any = picture.getpixel(place)
    if max(abs(a - b) for a, b in zip(found, wanted, strict=True)) > TOLERANCE:
        raise WrongPicture(f"the {what} at {place} is {found}, not {wanted}")


@contextmanager
def serve_picture(data: bytes) -> Iterator[str]:
    """The URL under which a loopback server hands out a picture."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            """The demo has its own output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/sunset.png"
        finally:
            server.shutdown()
            thread.join(5)
