"""The visible mark: where it stands, how high it is, and that it can be read on everything."""

from __future__ import annotations

import importlib.util
import io
import weakref
from pathlib import Path
from typing import Any

import pytest
from c2pa import Reader
from PIL import Image, ImageOps

from agent.labels import mark as mark_module
from agent.labels.credentials import Credentials
from agent.labels.labeller import Labeller
from agent.labels.mark import Mark, UnusableFont
from agent.labels.picture import Wanted, label
from agent.labels.settings import Corner
from agent.settings import SettingsError
from tests.exif_tool import ExifTool
from tests.integration.agent.service import settings_of
from tests.unit.labels.files import MODES, OTHER_XMP, PROFILE, comfyui_png, encode, exif_of, noise

WHITE, BLACK = 255, 0


def mark(text: str = "AI", height: float = 5, corner: Corner = Corner.BOTTOM_RIGHT) -> Mark:
    return Mark(text, None, height, corner)


def marked(data: bytes, with_mark: Mark | None = None) -> bytes:
    found = label(data, Wanted(iptc=True, mark=with_mark or mark()))
    assert found is not None
    return found.data


def look(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def flat(color: int, size: tuple[int, int], kind: str = "PNG", mode: str = "L", **how: Any) -> bytes:
    return encode(Image.new("L", size, color).convert(mode), kind, **how)


@pytest.mark.parametrize("size", [(1024, 1024), (1920, 1080), (512, 768), (200, 200)])
@pytest.mark.parametrize("text", ["AI", "AI generated", "AIx"])
def test_letters_are_as_high_as_they_must_be(size: tuple[int, int], text: str) -> None:
    grey = look(marked(flat(BLACK, size), mark(text))).convert("L")
    white = grey.point(lambda value: WHITE if value > 127 else BLACK).getbbox()
    assert white is not None
    assert white[3] - white[1] >= 0.05 * min(size)
    assert white[3] - white[1] < 0.08 * min(size)


@pytest.mark.parametrize("background", [BLACK, 60, 128, 200, WHITE])
def test_mark_is_seen_on_any_ground(background: int) -> None:
    grey = look(marked(flat(background, (512, 512)))).convert("L")
    dark, light = grey.getextrema()
    assert light - background > 100 or background - dark > 100
    assert (dark, light) == (min(background, dark), max(background, light))


@pytest.mark.parametrize("corner", list(Corner))
def test_corner(corner: Corner) -> None:
    box = look(marked(flat(BLACK, (400, 300)), mark(corner=corner))).convert("L").getbbox()
    assert box is not None
    assert (box[0] > 200) == corner.endswith("right")
    assert (box[1] > 150) == corner.startswith("bottom")
    assert box[0] > 0
    assert box[1] > 0
    assert box[2] < 400
    assert box[3] < 300


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mark_stands_upright_as_the_picture_is_shown(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = marked(flat(BLACK, (400, 300), "JPEG", "RGB", exif=exif.tobytes()))
    shown = ImageOps.exif_transpose(look(data)).convert("L").point(lambda v: WHITE if v > 127 else BLACK)
    plain = (
        look(marked(flat(BLACK, shown.size, "JPEG", "RGB")))
        .convert("L")
        .point(lambda v: WHITE if v > 127 else BLACK)
    )
    box, wanted = shown.getbbox(), plain.getbbox()
    assert box is not None
    assert wanted is not None
    assert all(abs(a - b) <= 2 for a, b in zip(box, wanted, strict=True))


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_format_size_and_everything_told_stay(kind: str, mode: str, tool: ExifTool) -> None:
    how: dict[str, Any] = {"exif": exif_of(artist="Somebody")}
    if mode in ("RGB", "RGBA"):
        how["icc_profile"] = PROFILE
    if kind != "PNG":
        how["xmp"] = OTHER_XMP
    if kind == "JPEG":
        how |= {"progressive": True, "quality": 61, "dpi": (300, 300), "comment": b"a comment"}
    data = encode(noise((96, 64), mode), kind, **how)
    before, after, tags = look(data), look(marked(data)), tool.read(marked(data))
    assert (after.format, after.size) == (before.format, before.size)
    assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert tags["IFD0:Artist"] == "Somebody"
    if kind == "JPEG":
        assert (after.mode, after.quantization) == (before.mode, before.quantization)
        assert after.info.get("progressive") == before.info.get("progressive")
        assert after.info.get("dpi") == before.info.get("dpi")
        assert tags["File:Comment"] == "a comment"
    if kind != "PNG":
        assert tags["XMP-dc:Format"] == "image/x-test"
    if kind == "PNG" and mode != "I;16":
        far = (0, 0, 48, 32)  # away from the mark nothing changes
        assert after.convert("RGBA").crop(far).tobytes() == before.convert("RGBA").crop(far).tobytes()


def test_texts_of_comfyui_stay_in_a_marked_png() -> None:
    found = look(marked(comfyui_png(workflow="{}")))
    assert {"prompt", "workflow"} <= found.info.keys()


def test_lossless_webp_stays_lossless() -> None:
    data = encode(noise((96, 64)), "WEBP", lossless=True)
    far = (0, 0, 48, 32)
    assert look(marked(data)).crop(far).tobytes() == look(data).crop(far).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_every_frame_of_an_animation_is_marked(kind: str) -> None:
    images = [Image.new("RGB", (200, 200), color) for color in ("black", "navy", "maroon")]
    data = encode(images[0], kind, save_all=True, append_images=images[1:], duration=[50, 60, 70], loop=3)
    found = look(marked(data))
    assert found.n_frames == 3  # type: ignore[attr-defined]
    assert found.info["loop"] == 3
    for number, duration in enumerate((50, 60, 70)):
        found.seek(number)
        found.load()
        assert found.info["duration"] == duration
        assert found.convert("L").getextrema()[1] > 200


def moving(mode: str, count: int = 6, size: tuple[int, int] = (90, 70)) -> list[Image.Image]:
    """Frames in which something moves over a ground, in one of them nothing."""
    frames = []
    for number in range(count):
        frame = noise(size, "RGB").convert(mode)
        if mode == "RGBA":
            frame.putalpha(noise(size, "L", 3))
        spot = noise((11, 9), "RGB", number + 2).convert(mode)
        frame.paste(spot, (5 + 7 * min(number, 4), 3 + 5 * min(number, 4)))
        frames.append(frame)
    return frames


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_away_from_the_mark_no_frame_changes(kind: str, mode: str) -> None:
    images = moving(mode)
    how: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {"default_image": True}
    durations = [40 + number for number in range(len(images))]
    durations = durations if kind == "WEBP" else durations[1:]
    data = encode(images[0], kind, save_all=True, append_images=images[1:], duration=durations, **how)
    before, after = look(data), look(marked(data))
    assert after.n_frames == before.n_frames  # type: ignore[attr-defined]
    assert after.info.get("default_image") == before.info.get("default_image")
    box = (0, 0, 90, 55)
    for number in range(before.n_frames):  # type: ignore[attr-defined]
        for picture in (before, after):
            picture.seek(number)
            picture.load()
        assert after.convert(mode).crop(box).tobytes() == before.convert(mode).crop(box).tobytes(), number
        assert after.convert(mode).tobytes() != before.convert(mode).tobytes()
        assert after.info.get("duration") == before.info.get("duration")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_frames_whose_data_come_in_many_pieces_stay_whole(kind: str) -> None:
    images = [Image.effect_noise((400, 300), 90 + number).convert("RGB") for number in range(3)]
    how: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encode(images[0], kind, save_all=True, append_images=images[1:], duration=50, **how)
    assert len(data) > 3 * 2**16  # Pillow cuts what it writes to a PNG there
    before, after = look(data), look(marked(data))
    assert after.n_frames == 3  # type: ignore[attr-defined]
    for number in range(3):
        before.seek(number)
        after.seek(number)
        far = (0, 0, 400, 200)
        assert after.convert("RGB").crop(far).tobytes() == before.convert("RGB").crop(far).tobytes()


def test_frames_of_other_modes_and_disposals_are_marked_as_they_are_shown() -> None:
    images = [frame.quantize(16) for frame in moving("RGB")]
    for disposal in (0, 1, 2):
        data = encode(images[0], "PNG", save_all=True, append_images=images[1:], disposal=disposal, blend=1)
        before, after = look(data), look(marked(data))
        for number in range(before.n_frames):  # type: ignore[attr-defined]
            before.seek(number)
            after.seek(number)
            parts = [picture.convert("RGB").crop((0, 0, 90, 55)).tobytes() for picture in (before, after)]
            assert parts[0] == parts[1], (disposal, number)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_few_frames_of_an_animation_are_in_memory_at_a_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [noise((60, 40), "RGB", number) for number in range(1, 31)]
    data = encode(images[0], kind, save_all=True, append_images=images[1:], duration=50)
    alive: weakref.WeakValueDictionary[object, Image.Image] = weakref.WeakValueDictionary()
    most = 0
    drawable = mark_module._drawable

    def noted(picture: Image.Image) -> Image.Image:
        nonlocal most
        frame = drawable(picture)
        alive[object()] = frame
        most = max(most, len(alive))
        return frame

    monkeypatch.setattr(mark_module, "_drawable", noted)
    assert look(marked(data)).n_frames == len(images)  # type: ignore[attr-defined]
    assert most <= 3


def test_picture_with_too_many_pixels_gets_the_other_labels_alone(tool: ExifTool) -> None:
    data = encode(noise((96, 64)), "PNG")
    found = label(data, Wanted(iptc=True, mark=mark(), most_pixels=96 * 64 - 1))
    assert found is not None
    assert found.missing == ("mark",)
    assert look(found.data).tobytes() == look(data).tobytes()
    assert "XMP-iptcExt:DigitalSourceType" in tool.read(found.data)
    fits = label(data, Wanted(iptc=True, mark=mark(), most_pixels=96 * 64))
    assert fits is not None
    assert fits.missing == ()


def test_tiny_pictures_are_marked_too() -> None:
    for size in ((1, 1), (8, 8), (3, 300), (300, 3)):
        assert look(marked(flat(BLACK, size))).size == size


def test_font_without_the_letters_is_refused() -> None:
    with pytest.raises(UnusableFont, match="no letter for 生 成; name one"):
        mark("AI生成")
    with pytest.raises(SettingsError, match="AGENT_LABEL_MARK_TEXT: the font has no letter"):
        Labeller(settings_of(label_mark_text="AI生成"))
    with pytest.raises(UnusableFont, match="nothing to be seen"):
        mark(" ")
    with pytest.raises(UnusableFont, match="too long"):
        mark("w" * 40)


def test_font_of_the_operator(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("matplotlib")  # brings a font with many scripts
    assert spec is not None
    assert spec.origin is not None
    font = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    text = "\N{CYRILLIC CAPITAL LETTER I}\N{CYRILLIC CAPITAL LETTER I}"
    with pytest.raises(UnusableFont, match="no letter"):
        mark(text)
    with_font = Mark(text, str(font), 5, Corner.TOP_LEFT)
    assert look(marked(flat(BLACK, (300, 300)), with_font)).getbbox() is not None
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    for path in (broken, tmp_path / "nowhere.ttf"):
        with pytest.raises(UnusableFont, match="cannot be read"):
            Mark("AI", str(path), 5, Corner.TOP_LEFT)


@pytest.mark.parametrize("kind", list(MODES))
def test_marked_picture_is_signed_last(kind: str, credentials: Credentials) -> None:
    found = label(encode(noise((64, 64)), kind), Wanted(iptc=True, mark=mark(), credentials=credentials))
    assert found is not None
    with Reader(f"image/{kind.lower()}", io.BytesIO(found.data)) as reader:
        assert reader.get_validation_state() == "Valid"
