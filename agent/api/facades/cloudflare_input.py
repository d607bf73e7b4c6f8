"""What a call of Cloudflare's Workers AI holds, and what it means in the words of all facades."""

from __future__ import annotations

from typing import Annotated, Any

import pybase64
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError
from pydantic_core import from_json

from agent.api.facades.models import Answer, Model
from agent.api.facades.request import LONGEST_TEXT, Prepared, Wish, data_uri, prepare
from agent.api.parse import in_thread
from agent.errors import InvalidJson, InvalidParameter

#: What comes before a picture as base64 in a data URI.
DATA_URI = "data:"

Size = Annotated[int, Field(strict=True, ge=64, le=2048)]


class Message(BaseModel):
    """One turn of a conversation."""

    role: StrictStr
    content: Annotated[StrictStr, Field(max_length=LONGEST_TEXT)]


class Input(BaseModel):
    """The parameters that mean something here. Others are ignored, as they are there."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    prompt: Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_TEXT)] | None = None
    negative_prompt: Annotated[StrictStr, Field(max_length=LONGEST_TEXT)] | None = None
    image: Any = Field(None, repr=False)
    image_b64: StrictStr | None = Field(None, repr=False)
    mask: Any = Field(None, repr=False)
    num_steps: Annotated[int, Field(strict=True, ge=1)] | None = None
    steps: Annotated[int, Field(strict=True, ge=1)] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    guidance: float | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    width: Size | None = None
    height: Size | None = None
    messages: list[Message] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, Field(strict=True, ge=1)] | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    text: Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_TEXT)] | None = None
    source_lang: StrictStr | None = None
    target_lang: StrictStr | None = None
    stream: bool = False


#: The parameters that a workflow has under the same name, if it has them.
SAME = (
    *("negative_prompt", "strength", "guidance", "width", "height"),
    *("max_tokens", "temperature", "top_p", "top_k", "source_lang", "target_lang"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
)

#: What is refused, since leaving it out would make something else than the caller asked for.
REFUSED = {
    "lora": "fine-tunes are a workflow's own business here; AGENT_MODELS can name one for each",
    "tools": "models of this server call no tools",
    "functions": "models of this server call no functions",
    "response_format": "models of this server answer with text as it comes",
}


def parse_body(body: bytes, model: Model) -> dict[str, Any]:
    """The JSON object of a body; for a model that tells what pictures show, the body may be the picture itself.

    Raises InvalidJson. Takes a while for megabytes.
    """
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        if model.answer is Answer.LABELS and body:
            return {"image": body}
        raise InvalidJson(f"The body is not JSON: {exc}.") from None
    if not isinstance(data, dict):
        raise InvalidJson("The body is a JSON object.")
    return data


async def prepare_input(app: web.Application, model: Model, data: dict[str, Any]) -> Prepared:
    """The run that these parameters ask for. Raises InvalidParameter, InvalidModel."""
    wish = await in_thread(app, wish_of, read_input(data), model)
    return await prepare(app, model, wish)


def read_input(data: dict[str, Any]) -> Input:
    """Raises InvalidParameter."""
    for name, reason in REFUSED.items():
        if data.get(name) is not None:
            raise InvalidParameter(f'Parameter "{name}": {reason}.', parameter=name)
    try:
        return Input.model_validate(data)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, found["loc"]))[:64]
        raise InvalidParameter(f'Parameter "{name}": {found["msg"]}.', parameter=name) from None


def wish_of(given: Input, model: Model) -> Wish:
    """What is to be made. Raises InvalidParameter. Takes a while for large pictures."""
    values = {name: getattr(given, name) for name in SAME}
    values["prompt"] = _words(given)
    values["steps"] = given.num_steps if given.num_steps is not None else given.steps
    values["seed"] = -1 if given.seed is None else given.seed
    if model.answer is Answer.TRANSLATION and given.target_lang is None:
        raise InvalidParameter('Parameter "target_lang" is needed.', parameter="target_lang")
    if values["prompt"] is None and model.answer is not Answer.LABELS:
        name = "text" if model.answer is Answer.TRANSLATION else "prompt"
        raise InvalidParameter(f'Parameter "{name}" is needed.', parameter=name)
    image = given.image_b64 if given.image is None else given.image
    names = {
        "steps": "num_steps" if given.num_steps is not None else "steps",
        "image": "image_b64" if given.image is None and given.image_b64 is not None else "image",
        "prompt": "text" if given.text is not None else "messages" if given.messages else "prompt",
    }
    return Wish(
        values,
        images=[] if image is None else [_picture(image, names["image"])],
        mask=None if given.mask is None else _picture(given.mask, "mask"),
        names=names,
    )


def _words(given: Input) -> str | None:
    """The prompt; a conversation becomes one text, in which each turn begins with its role. Raises InvalidParameter."""
    if given.prompt is not None or given.text is not None:
        return given.prompt if given.prompt is not None else given.text
    if not given.messages:
        return None
    if len(given.messages) == 1:
        return given.messages[0].content
    words = "\n".join(f"{message.role}: {message.content}" for message in given.messages)
    if len(words) > LONGEST_TEXT:
        raise InvalidParameter(
            f'Parameter "messages": all of them together may have {LONGEST_TEXT} characters.',
            parameter="messages",
        )
    return words


def _picture(value: Any, name: str) -> str:
    """A picture as an array of bytes, or as base64. Raises InvalidParameter."""
    wanted = InvalidParameter(
        f'Parameter "{name}": a picture is an array of its bytes (0 to 255), or base64.', parameter=name
    )
    if isinstance(value, bytes):
        return data_uri(value)
    if isinstance(value, list) and value:
        try:
            return data_uri(bytes(value))
        except (TypeError, ValueError):
            raise wanted from None
    if not isinstance(value, str) or not value.strip():
        raise wanted
    text = value.partition(",")[2] if value.startswith(DATA_URI) else value
    try:
        return data_uri(pybase64.b64decode("".join(text.split()), validate=True))
    except ValueError:
        raise wanted from None
