"""The JSON bodies of the HTTP interface, as types. The OpenAPI document is made from them."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    RootModel,
    StrictBool,
    StrictStr,
    field_validator,
)

from agent.labels.options import LabelOptions
from agent.model import Model
from agent.safety.options import SafetyOptions
from agent.settings import Outputs
from agent.tasks.record import NodeProgress, Output, State, TaskRecord


class CallerOptions(Model):
    """What a caller may say beside the workflow, or beside the parameters of a named one.

    `webhook` is a URL that is told of the task's end. `outputs`: "inline" wants them as base64 in the answer, "url" as
    signed URLs of the object store. `safety` asks for a stricter review than the server's own, `labels` for more labels
    on what is delivered. The others go to ComfyUI as they are; `client_id` and `prompt_id` are accepted from ComfyUI's
    own clients, and ignored: the agent has its own.
    """

    model_config = ConfigDict(extra="forbid")

    extra_data: dict[str, Any] | None = None
    front: StrictBool | None = None
    number: FiniteFloat | None = None
    partial_execution_targets: list[StrictStr] | None = None
    outputs: Outputs | None = None
    safety: SafetyOptions | None = None
    labels: LabelOptions | None = None
    client_id: Any = None
    prompt_id: Any = None
    webhook: StrictStr | None = None

    @field_validator("extra_data")
    @classmethod
    def _is_json(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        json.dumps(value, allow_nan=False)  # 1e400 is read as infinity, and would go on as null
        return value

    def for_engine(self) -> dict[str, Any]:
        """The fields of POST /prompt, without those that are not set."""
        names = {"front", "number", "partial_execution_targets"}
        return self.model_dump(include=names, exclude_none=True)


class RunOptions(CallerOptions):
    """What may stand beside the workflow in `{"prompt": workflow, ...}`.

    `workflow_name` says which named workflow it was made from; the task's record keeps it. `parked` comes from an agent
    in front, which has put long inputs into the shared store.
    """

    workflow_name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] | None = None
    parked: dict[str, dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]] | None = None


class WorkflowNode(Model):
    """One node in ComfyUI's API format; further fields pass through."""

    model_config = ConfigDict(extra="allow")

    class_type: Annotated[str, Field(min_length=1)]
    inputs: dict[str, Any]


Graph = Annotated[dict[str, WorkflowNode], Field(min_length=1, description="Node id -> node.")]


class RunEnvelope(RunOptions):
    """A workflow with options beside it."""

    prompt: Graph


class RunBody(RootModel[RunEnvelope | Graph]):
    """A workflow in ComfyUI's API format, or an envelope around it."""


class NamedRunBody(CallerOptions):
    """Values for the parameters of a named workflow by name, with options beside them."""

    parameters: dict[str, Any] = Field(default_factory=dict)


class WorkflowSummary(Model):
    """A named workflow. Texts are one for everybody or one a language (en, zh, ja). `available`: whether the engine of
    this instance has all it needs; null where there is none that could tell. `missing`: what it lacks."""

    name: str
    title: str | dict[str, str]
    description: str | dict[str, str] | None
    tags: list[str]
    available: bool | None
    missing: list[str]
    thumbnail: str | None = None


class WorkflowList(Model):
    """All named workflows."""

    workflows: list[WorkflowSummary]


class ModelFile(Model):
    """A file that the engine needs, and in words where it is to be had."""

    folder: str
    file: str
    source: str


class WorkflowDetail(WorkflowSummary):
    """A named workflow with all that is needed to make a form for it. `outputs`: ids of the nodes whose files matter,
    in order; empty: all output nodes. `workflow`: the graph."""

    parameters_schema: dict[str, Any] = Field(alias="schema", description="JSON Schema of the parameters.")
    outputs: list[str]
    models: list[ModelFile]
    workflow: dict[str, Any]


class NodeResult(NodeProgress):
    """A node's progress with its outputs in the order of `images`: as padded base64, or as URLs."""

    results: list[str] = Field(default_factory=list)
    urls: list[str] = Field(default_factory=list)


class OutputView(Output):
    """An output; where it lies in the object store with a URL that anybody can read it by for a while."""

    signed_url: str | None = None


class TaskView(TaskRecord):
    """A task as it is answered."""

    outputs: list[OutputView] = Field(default_factory=list)  # type: ignore[assignment] # a list of what it was


class Accepted(Model):
    """A task that runs in the background."""

    task_id: str
    state: State


class TaskPage(Model):
    """Tasks, newest first. `next` is the `before` of the page after this one; null on the last."""

    tasks: list[TaskView]
    next: str | None


class QueueView(Model):
    """Task ids on this instance, and how many tasks it takes at once."""

    running: list[str]
    queued: list[str]
    capacity: int


class Status(Model):
    """How the service or its engine is."""

    model_config = ConfigDict(extra="allow")

    status: str


class ErrorDetail(Model):
    """A sentence for people, whether a retry may help, and facts such as `node_id`."""

    model_config = ConfigDict(extra="allow")

    detail: str
    transient: bool


class ErrorBody(Model):
    """Every error: `message` is a stable code."""

    message: str
    error: ErrorDetail
    task_id: str | None = None
