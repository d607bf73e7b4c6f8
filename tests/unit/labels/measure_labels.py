"""How long labels take on a picture of 1024 x 1024: `python -m tests.unit.labels.measure_labels`.

Then how much memory the mark takes on an animation of as large frames.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFilter

from agent.labels.aigc import aigc_json
from agent.labels.credentials import Credentials
from agent.labels.mark import Mark
from agent.labels.picture import Wanted, label
from agent.labels.settings import Corner
from tests.certificates import make_signer
from tests.unit.labels.files import encode

TIMES = 15

#: Of the animation.
FRAMES = 100


def milliseconds(work: Callable[[], object]) -> float:
    """The median."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found) * 1000


def animation(kind: str) -> bytes:
    grounds = [Image.new("RGB", (1024, 1024), (n * 37 % 256, n * 91 % 256, 128)) for n in range(FRAMES)]
    return encode(grounds[0], kind, save_all=True, append_images=grounds[1:], duration=50)


def megabytes(data: bytes) -> float:
    """How much more memory than before there was at most while the mark was drawn on this picture."""
    mark = Mark("AI", None, 5, Corner.BOTTOM_RIGHT)
    Path("/proc/self/clear_refs").write_text("5")  # forget the most so far: proc(5)
    before = resident()["VmRSS"]
    mark.draw(data)
    return (resident()["VmHWM"] - before) / 1024


def resident() -> dict[str, int]:
    """What Linux says of this process' memory, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if "kB" in value
    }


def main() -> None:
    picture = Image.effect_noise((1024, 1024), 60).convert("RGB").filter(ImageFilter.GaussianBlur(1))
    with tempfile.TemporaryDirectory() as folder:
        signer = make_signer(Path(folder))
        credentials = Credentials(str(signer.certificate), str(signer.key), "es256")
    texts = Wanted(iptc=True, aigc=aigc_json("Example Ltd", "t-0"), parameters="Steps: 4", remove_prompt=True)
    wanted = {
        "XMP, texts": texts,
        "content credentials": Wanted(credentials=credentials),
        "mark": Wanted(mark=Mark("AI", None, 5, Corner.BOTTOM_RIGHT)),
    }
    for kind in ("PNG", "JPEG", "WEBP"):
        data = encode(picture, kind)
        for name, labels in wanted.items():
            taken, added = milliseconds(lambda: label(data, labels)), label(data, labels)  # noqa: B023 - called at once
            assert added is not None
            print(
                f"{kind:5} {len(data):8} bytes  {name:20} {taken:7.1f} ms {len(added.data) - len(data):+8} bytes"
            )
    for kind in ("PNG", "WEBP"):
        data = animation(kind)
        print(f"{kind:5} {len(data):8} bytes  {FRAMES} frames: the mark takes {megabytes(data):.0f} MB")


if __name__ == "__main__":
    main()
