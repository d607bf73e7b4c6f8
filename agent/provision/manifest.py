"""The manifest: which models and custom nodes shall be in place, and how much disk the models may take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from agent.provision.errors import ManifestError
from comfyui.http import URL, InvalidURL

UNITS = {"": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}

#: A registry name and a pinned version. It begins with a letter or digit: comfy-cli must not take it for an option.
_NODE = re.compile(r"[A-Za-z0-9][\w.-]*@[A-Za-z0-9][\w.+-]*")

#: With `.` before and `.part` behind it a name must still fit the 255 bytes that file systems allow.
_LONGEST_NAME = 240


def _url(text: str) -> str:
    try:
        url = URL(text)
    except (InvalidURL, ValueError):
        raise ValueError("is malformed: write it as in a browser's address bar") from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ValueError("must begin with http:// or https:// and name a host")
    if url.userinfo:
        raise ValueError("must not hold credentials: name a variable with the token under `tokens`")
    return text


def _path(text: str) -> str:
    """Allow only names below the models folder, and none that this command uses itself."""
    names = text.split("/")
    if not text or text.startswith("/") or "\\" in text or not text.isprintable():
        raise ValueError("must be relative to the models folder, such as checkpoints/NAME.safetensors")
    if any(name in ("", ".", "..") for name in names):
        raise ValueError("must not hold empty parts, `.` or `..`: it stays inside the models folder")
    if any(name.startswith(".") for name in names):
        raise ValueError("must not hold names that begin with a dot: ComfyUI skips them")
    if any(len(name.encode()) > _LONGEST_NAME for name in names):
        raise ValueError(f"holds a name of more than {_LONGEST_NAME} bytes: choose a shorter one")
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("must be 64 hexadecimal digits, in quotes: `sha256sum FILE` prints them")
    return text.lower()


def _size(value: Any) -> Any:
    """Read `40 GB` or `40 GiB`; a plain number is bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]i?B|)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number of bytes, or one with KB, MB, GB, TB, KiB, MiB, GiB or TiB")
    return int(float(match[1]) * UNITS[match[2]])


def _node(text: str) -> str:
    if not _NODE.fullmatch(text):
        raise ValueError("must be NAME@VERSION, the name being that of the Comfy registry")
    return text


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class ModelEntry(_Part):
    """One model file: where it comes from, where below the models folder it belongs, and what it must be."""

    url: Annotated[str, AfterValidator(_url)]
    path: Annotated[str, AfterValidator(_path)]
    sha256: Annotated[str, AfterValidator(_sha256)]
    #: The exact size; needed with a disk budget, which is planned before anything is downloaded.
    bytes: Annotated[int, Field(gt=0)] | None = None
    #: May be deleted again when the disk budget needs the room.
    evictable: bool = False


class Manifest(_Part):
    """Everything that one run shall put in place."""

    #: The models folder; the command line wins over it.
    root: str | None = None
    disk_budget: Size | None = None
    parallel: int = Field(4, ge=1, le=32)
    #: Host, with its port where the URL has one -> environment variable that holds the token for it.
    tokens: dict[str, str] = Field(default_factory=dict)
    models: tuple[ModelEntry, ...] = Field((), strict=False)
    custom_nodes: tuple[Annotated[str, AfterValidator(_node)], ...] = Field((), strict=False)

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str | None) -> str | None:
        if root is not None and not Path(root).is_absolute():
            raise ValueError("must be an absolute path")
        return root

    @field_validator("tokens")
    @classmethod
    def _names_of_variables(cls, tokens: dict[str, str]) -> dict[str, str]:
        # Nothing is repeated here: what stands in the wrong place may be the token itself.
        if not all(re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) for variable in tokens.values()):
            raise ValueError(
                "must give for each host the NAME of an environment variable, such as HF_TOKEN, never a token"
            )
        return {host.lower(): variable for host, variable in tokens.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for model in self.models:
            # Some shared disks do not tell capitals apart.
            if model.path.casefold() in seen:
                raise ValueError(f"{model.path} is the path of two models: give each its own")
            seen.add(model.path.casefold())
        self._check_budget()
        return self

    def _check_budget(self) -> None:
        if self.disk_budget is None:
            return
        unknown = [model.path for model in self.models if model.bytes is None]
        if unknown:
            raise ValueError(f"with disk_budget each model needs `bytes`; it is missing for {unknown[0]}")
        needed = sum(model.bytes or 0 for model in self.models if not model.evictable)
        if needed > self.disk_budget:
            raise ValueError(
                f"the models that are not evictable take {needed} bytes, disk_budget is {self.disk_budget}: "
                "raise it, or mark more models as evictable"
            )


def load_manifest(file: Path) -> Manifest:
    """Read a manifest. Raises ManifestError with a sentence for each fault."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ManifestError(f"{file}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{file}: is not text in UTF-8") from None
    except yaml.YAMLError as exc:
        raise ManifestError(f"{file}: is not YAML{_line(exc)}") from None
    if document is None:
        document = {}
    try:
        return Manifest.model_validate(document)
    except ValidationError as exc:
        found = exc.errors(include_input=False, include_url=False)
        raise ManifestError(*(f"{file}: {_say(error, document)}" for error in found)) from None


def _line(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    return f": line {mark.line + 1}, column {mark.column + 1}: {getattr(exc, 'problem', '')}" if mark else ""


def _say(error: Any, document: Any) -> str:
    where = _where(error["loc"], document)
    match error["type"]:
        case "missing":
            problem = "is missing"
        case "extra_forbidden":
            problem = "is no known name: see deploy/models.yaml for those there are"
        case "model_type" | "model_attributes_type":
            problem = "must be a mapping of names to values"
        case "string_type":
            problem = "must be text; put it in quotes"
        case "value_error":
            problem = str(error["msg"]).removeprefix("Value error, ")
        case _:
            problem = str(error["msg"]).replace("Input should be", "should be").replace("Input", "it")
    return f"{where} {problem}".strip()


def _where(loc: tuple[int | str, ...], document: Any) -> str:
    """`models[2] (vae/x.safetensors): sha256`, so that the entry is found in a long file."""
    words = ""
    for part in loc:
        words += f"[{part}]" if isinstance(part, int) else f"{': ' if words else ''}{part}"
        document = _inside(document, part)
        if isinstance(part, int) and isinstance(path := _inside(document, "path"), str):
            words += f" ({path[:80]!s})"
    return words


def _inside(document: Any, part: int | str) -> Any:
    try:
        return document[part]
    except (LookupError, TypeError):
        return None
