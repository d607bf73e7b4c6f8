"""What a call of OpenAI's Images API holds, and what it means in the words of all facades."""

from __future__ import annotations

import io
import re
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from agent.api.facades.decoding import decode_picture
from agent.api.facades.request import LONGEST_TEXT, Wish, data_uri
from agent.api.form import File, read_form
from agent.api.parse import in_thread, read_object
from agent.errors import InvalidParameter

#: The model of a call that names none.
DEFAULT_MODEL = "gpt-image-1"

SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})")

#: How many times the steps of the workflow a quality takes. The others take those that it has.
EFFORT = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.5}

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

#: Fields of a form that hold pictures.
PICTURES = ("image", "image[]", "mask", "markup")

#: Most pictures of one edit.
MOST_PICTURES = 16

Image = TypeVar("Image", bound="Generation")


class Generation(BaseModel):
    """POST /v1/images/generations. A parameter that is none of these is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] | None = None
    background: Literal["opaque", "auto"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None

    @property
    def model_name(self) -> str:
        return self.model or DEFAULT_MODEL

    @property
    def wants_url(self) -> bool:
        """The retired models answered with URLs unless they were asked for base64."""
        if self.response_format is None:
            return self.model_name.startswith("dall-e")
        return self.response_format == "url"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.output_format or "png"]


def _check_address(url: str) -> str:
    if not url.startswith(("http://", "https://", "data:")):
        raise PydanticCustomError("address", "it must be an http(s) URL or a data URL")
    return url


def _refuse_file(reference: Any) -> Any:
    if isinstance(reference, dict) and reference.get("file_id") is not None:
        raise PydanticCustomError("file", "this server keeps no files, so none has a file_id; send image_url")
    return reference


class Reference(BaseModel):
    """A picture that is named instead of sent: by a URL, and not as a file of the engine, which workflows take too."""

    image_url: Annotated[str, AfterValidator(_check_address)]


Referred = Annotated[Reference, BeforeValidator(_refuse_file)]


class Edit(Generation):
    """POST /v1/images/edits, as JSON. `images` and `mask` are http(s) or data URLs."""

    images: Annotated[list[Referred], Field(min_length=1, max_length=MOST_PICTURES)]
    mask: Referred | None = None


async def read_generation(request: web.Request) -> Generation:
    """Raises InvalidJson, InvalidParameter."""
    return _validate(Generation, await read_object(request))


async def read_edit(request: web.Request) -> Edit:
    """An edit, as the form of the original or as its JSON. Raises InvalidJson, InvalidRequest, InvalidParameter."""
    if request.content_type != "multipart/form-data":
        return _validate(Edit, await read_object(request))
    data: dict[str, Any] = {"images": []}
    for name, value in await read_form(request):
        if name not in PICTURES:
            data[name] = value.data.decode(errors="replace") if isinstance(value, File) else value
        elif not isinstance(value, File):
            raise InvalidParameter(f'Parameter "{name}": send the picture as a file.', parameter=name)
        elif name == "markup":
            data[name] = True
        else:
            reference = {"image_url": await in_thread(request.app, data_uri, value.data)}
            if name == "mask":
                data["mask"] = reference
            else:
                data["images"].append(reference)
    return _validate(Edit, data, pictures="image")


async def wish_of(app: web.Application, given: Generation) -> Wish:
    """What is to be made. Raises InvalidParameter, InvalidInput."""
    width, height = _size(given.size)
    images, mask = [], None
    if isinstance(given, Edit):
        images = [image.image_url for image in given.images]
        mask = await _mask(app, given)
    return Wish(
        {"prompt": given.prompt, "width": width, "height": height, "seed": -1},
        images=images,
        mask=mask,
        names={"width": "size", "height": "size", "megapixels": "size"},
        effort=EFFORT.get(given.quality or "auto", 1.0),
        wants_url=given.wants_url and not given.stream,
    )


#: What is refused, since leaving it out would make another picture than the caller asked for.
REFUSED = {
    "markup": "a drawing over the picture is not understood here",
    "svg": "pictures of this server are made of pixels",
    "frame_count": "this server makes no GIF",
    "frame_duration_ms": "this server makes no GIF",
}


def _validate(kind: type[Image], data: dict[str, Any], *, pictures: str = "images") -> Image:
    """`pictures`: what the caller calls those of an edit. Raises InvalidParameter."""
    for name, reason in REFUSED.items():
        if data.get(name) is not None:
            raise InvalidParameter(f'Parameter "{name}": {reason}.', parameter=name)
    if data.get("background") == "transparent":
        raise InvalidParameter(
            'Parameter "background": pictures of this server have no transparent background.',
            parameter="background",
        )
    try:
        given = kind.model_validate(data)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, found["loc"]))[:64].replace("images", pictures) or "prompt"
        raise InvalidParameter(f'Parameter "{name}": {found["msg"]}.', parameter=name) from None
    if given.stream and (given.n or 1) > 1:
        raise InvalidParameter('Parameter "n": a stream is of one picture here.', parameter="n")
    if given.wants_url and given.output_format not in (None, "png"):
        raise InvalidParameter(
            'Parameter "output_format": by URL a picture comes as it was made. Ask for "b64_json".',
            parameter="output_format",
        )
    return given


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size in (None, "auto"):
        return None, None
    found = SIZE.fullmatch(size or "")
    if found is None:
        raise InvalidParameter('Parameter "size": write it as 1024x1024, or auto.', parameter="size")
    return int(found[1]), int(found[2])


async def _mask(app: web.Application, given: Edit) -> str | None:
    """The mask as a named workflow takes it. With DALL-E 2 the transparent part of the picture itself was one."""
    is_own = given.mask is None and given.model_name == "dall-e-2" and _is_data(given.images[0].image_url)
    url = given.images[0].image_url if is_own else given.mask.image_url if given.mask else None
    if url is None:
        return None
    if not _is_data(url):
        raise InvalidParameter('Parameter "mask": send it as a file or as a data URL.', parameter="mask")
    made = await in_thread(app, _from_transparency, url)
    if made is None and not is_own:
        raise InvalidParameter(
            'Parameter "mask": it has no transparent part, and that is what would be drawn anew.',
            parameter="mask",
        )
    return made


def _is_data(url: str) -> bool:
    return url.startswith("data:")


def _from_transparency(url: str) -> str | None:
    """White where the picture is transparent, black elsewhere; None where no pixel is. Raises InvalidInput,
    InvalidParameter."""
    mask = (
        decode_picture(url, "mask").getchannel("A").point([255 if value == 0 else 0 for value in range(256)])
    )
    if mask.getbbox() is None:
        return None
    out = io.BytesIO()
    mask.convert("RGB").save(out, "PNG", compress_level=1)
    return data_uri(out.getvalue())
