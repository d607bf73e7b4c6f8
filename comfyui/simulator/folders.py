"""The input, output, temp and models folders below the base directory, and the names of new files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

BUILT_IN_MODELS: dict[str, tuple[str, ...]] = {
    "checkpoints": (
        "DreamShaper8_LCM.safetensors",
        "flux1-dev-fp8.safetensors",
        "flux1-schnell-fp8.safetensors",
        "sd_xl_base_1.0.safetensors",
        "v1-5-pruned-emaonly.safetensors",
    ),
    "configs": (),
    "loras": ("add-detail-xl.safetensors", "pixel-art-xl.safetensors"),
    "vae": ("ae.safetensors", "sdxl_vae.safetensors"),
    "text_encoders": ("clip_l.safetensors", "t5xxl_fp8_e4m3fn.safetensors"),
    "diffusion_models": ("flux1-dev.safetensors", "flux1-schnell.safetensors"),
    "clip_vision": (),
    "style_models": (),
    "embeddings": (),
    "diffusers": (),
    "vae_approx": (),
    "controlnet": ("control_v11p_sd15_canny.pth",),
    "gligen": (),
    "upscale_models": ("RealESRGAN_x4plus.pth",),
    "custom_nodes": (),
    "hypernetworks": (),
    "photomaker": (),
    "classifiers": (),
    "model_patches": (),
    "audio_encoders": (),
}
"""The folder types ComfyUI 0.3.64 lists, with plausible names where the folder holds no file."""

KINDS = ("input", "output", "temp")
_ANNOTATION = re.compile(r" \[(input|output|temp)\]$")


@dataclass(frozen=True)
class SavePlace:
    """Where a save node writes next: `{name}_{counter:05}_`, inside `folder`."""

    folder: Path
    name: str
    counter: int
    subfolder: str


class Folders:
    """The folders of one server. The temp folder is emptied at the start, as ComfyUI does."""

    def __init__(self, base: Path, extra_models: tuple[str, ...] = ()) -> None:
        self.base = base.absolute()
        self._extra_models = extra_models
        shutil.rmtree(self.of_kind("temp"), ignore_errors=True)
        for kind in (*KINDS, "models"):
            (self.base / kind).mkdir(parents=True, exist_ok=True)

    def of_kind(self, kind: str) -> Path:
        return self.base / kind

    def locate(self, name: str) -> str:
        """The path of an input name, which may end in ` [output]` or the like; not confined, as upstream."""
        kind, bare = split_annotation(name)
        return os.path.join(self.of_kind(kind or "input"), bare)  # noqa: PTH118 - keeps the slash of an empty name

    def digest(self, name: str) -> str:
        """sha256 of an input's content: what the cache compares."""
        return hashlib.sha256(Path(self.locate(name)).read_bytes()).hexdigest()

    def input_files(self) -> list[str]:
        """Files at the top of the input folder."""
        return sorted(entry.name for entry in os.scandir(self.of_kind("input")) if entry.is_file())

    def models(self, kind: str) -> list[str]:
        """Names in one model folder, read anew at each call; built-in names if the folder is empty."""
        root = self.base / "models" / kind
        found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        extra = [name.removeprefix(f"{kind}/") for name in self._extra_models if folder_of(name) == kind]
        return sorted({*(found or BUILT_IN_MODELS.get(kind, ())), *extra})

    def model_kinds(self) -> list[str]:
        """The folder types that GET /models lists."""
        return list(BUILT_IN_MODELS)

    def place(self, kind: str, prefix: str, width: int = 0, height: int = 0) -> SavePlace:
        """The next free number for a prefix; raises if the prefix leaves the folder."""
        root = self.of_kind(kind)
        filled = _fill(prefix, width, height)
        subfolder, name = os.path.split(os.path.normpath(filled))
        folder = Path(os.path.normpath(root / subfolder))
        if not folder.is_relative_to(root):
            raise Exception(_outside(folder, root))  # noqa: TRY002 - the bare type is part of the copied report
        folder.mkdir(parents=True, exist_ok=True)
        return SavePlace(folder, name, _highest(folder, name) + 1, subfolder)


def split_annotation(name: str) -> tuple[str | None, str]:
    """`x.png [temp]` names the folder: ("temp", "x.png")."""
    match = _ANNOTATION.search(name)
    return (match[1], name[: match.start()]) if match else (None, name)


def folder_of(model: str) -> str:
    """The folder type a `--model [FOLDER/]NAME` belongs to."""
    head, slash, _ = model.partition("/")
    return head if slash and head in BUILT_IN_MODELS else "checkpoints"


def _fill(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    values = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    values |= {"month": f"{now.tm_mon:02}", "day": f"{now.tm_mday:02}"}
    values |= {"hour": f"{now.tm_hour:02}", "minute": f"{now.tm_min:02}", "second": f"{now.tm_sec:02}"}
    for key, value in values.items():
        prefix = prefix.replace(f"%{key}%", value)
    return prefix


def _highest(folder: Path, name: str) -> int:
    """The highest number in use. A name with %batch_num% matches no file, so it starts at 1 again, as upstream."""
    pattern = re.compile(re.escape(name) + r"_(\d+)", re.IGNORECASE)
    numbers = (pattern.match(entry.name) for entry in os.scandir(folder))
    return max((int(match[1]) for match in numbers if match), default=0)


def _outside(folder: Path, root: Path) -> str:
    return (
        "**** ERROR: Saving image outside the output folder is not allowed."
        f"\n full_output_folder: {folder}\n         output_dir: {root}"
        f"\n         commonpath: {os.path.commonpath([root, folder])}"
    )
