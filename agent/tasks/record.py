"""The task record: everything the service knows of one task, as it is stored and as the API shows it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, computed_field
from pydantic.json_schema import SkipJsonSchema

from agent.model import Model
from agent.safety.verdict import Verdict


class State(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"  #: accepted; waits for an instance, for its inputs or for the engine
    RUNNING = "running"  #: the engine executes its prompt, or its outputs are being collected
    SUCCEEDED = "succeeded"  #: final; every output is stored
    FAILED = "failed"  #: final unless the error is transient and attempts remain
    CANCELLED = "cancelled"  #: final; somebody asked for it

    @property
    def is_final(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  #: the instance or its engine died; the task may be tried again


class Frozen(Model):
    """Base of all records: immutable, and JSON keeps the field names."""

    model_config = ConfigDict(frozen=True)


class NodeProgress(Frozen):
    """One entry of the progress map. `max` is 0 until the node is reached, as its callers expect; times are
    whole seconds since the epoch."""

    max: int | float = 0
    value: int | float = 0
    start: int = 0
    last_updated: int = 0
    images: list[dict[str, Any]] = Field(default_factory=list)
    text: list[str] | None = None
    ui: dict[str, Any] | None = None


class CurrentNode(Frozen):
    """The node that the engine executes now."""

    id: str
    title: str
    class_type: str
    value: int | float
    max: int | float


class Output(Frozen):
    """One file that a finished node produced. `bytes` is its size; `url` is where the API serves it. `object_key` names
    it in the object store; None: it is kept with the task."""

    index: int
    node_id: str
    filename: str
    subfolder: str
    type: str
    media_type: str
    bytes: int
    url: str
    object_key: str | None = None


class Attempt(Frozen):
    """One try of the task on one instance; times are seconds since the epoch."""

    number: int
    instance: str
    started_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    error: dict[str, Any] | None = None
    #: Its pictures were refused, and another attempt made them with new seeds: it does not count as a try.
    remade: bool = False
    #: What the review found, in the order in which it looked.
    verdicts: list[Verdict] = Field(default_factory=list)


class WebhookState(StrEnum):
    """How far the message of a task's end is."""

    PENDING = "pending"  #: the task is not over, or an instance is at it
    DELIVERED = "delivered"  #: the receiver took it
    FAILED = "failed"  #: given up


class Webhook(Frozen):
    """Where a task's end is told, and how that went. Times are seconds since the epoch."""

    url: str  #: without query and credentials
    state: WebhookState = WebhookState.PENDING
    id: str | None = None  #: names the message, once the task is over
    attempts: int = 0
    last_status: int | None = None
    error: str | None = None
    delivered_at: float | None = None
    sending_until: float | None = None  #: by then the instance that is at it has said more
    #: The whole URL where it holds more than `url`: in the store while it is needed, shown to nobody.
    target: Annotated[str | None, SkipJsonSchema()] = Field(None, repr=False)

    def changed(self, **changes: Any) -> Webhook:
        return self.model_copy(update=changes)

    def ended(self, now: float) -> Webhook:
        """As it stays after the last try."""
        state = WebhookState.FAILED if self.error is not None else WebhookState.DELIVERED
        delivered_at = now if self.error is None else None
        return self.changed(state=state, delivered_at=delivered_at, sending_until=None, target=None)


class TaskRecord(Frozen):
    """A task. Times are seconds since the epoch, durations in `timings` are seconds."""

    id: str
    state: State = State.QUEUED
    progress: float = 0.0
    queue_position: int | None = None
    current_node: CurrentNode | None = None
    #: Grows with each new preview of a task at work; 0: there is none.
    preview: int = 0
    attempts: list[Attempt] = Field(default_factory=list)
    nodes: dict[str, NodeProgress] = Field(default_factory=dict)
    outputs: list[Output] = Field(default_factory=list)
    warnings: list[dict[str, Any]] = Field(default_factory=list)
    seeds: dict[str, dict[str, int]] = Field(default_factory=dict)
    error: dict[str, Any] | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    prompt_id: str | None = None
    workflow_digest: str = ""
    webhook: Webhook | None = None
    #: Seconds for which each node of the latest attempt ran; without those that were cached. Empty where messages of
    #: ComfyUI were lost on the way.
    node_seconds: dict[str, float] = Field(default_factory=dict)
    #: The named workflow that it was made from; None for one that the caller sent.
    workflow_name: str | None = None
    #: Until when a platform may still deliver the task to an instance; None: nobody will bring it again, or its
    #: attempts are used up. The instance that has the task says so, whose limits others need not share.
    deliver_until: float | None = None

    @property
    def attempt(self) -> int:
        """Number of the latest attempt; 0 before the first."""
        return self.attempts[-1].number if self.attempts else 0

    @property
    def tries(self) -> int:
        """The attempts that count towards AGENT_MAX_ATTEMPTS."""
        return sum(not attempt.remade for attempt in self.attempts)

    @property
    def remakes(self) -> int:
        """How often its pictures were made again with new seeds."""
        return len(self.attempts) - self.tries

    @computed_field  # type: ignore[prop-decorator] # the order that pydantic asks for
    @property
    def billed_seconds(self) -> float:
        """An estimate of the instance time that the task cost, in seconds: what its ended attempts took from admission
        to end, waits included. An attempt whose instance vanished counts nothing, since nobody knows its end, and a
        task that shares its instance with others counts whole, though the platform bills the instance once."""
        known = [a for a in self.attempts if a.outcome is not Outcome.LOST or a.error is not None]
        return round(sum(max(0.0, a.ended_at - a.started_at) for a in known if a.ended_at is not None), 3)

    def changed(self, **changes: Any) -> TaskRecord:
        """A copy with these fields replaced (they are not validated again)."""
        return self.model_copy(update=changes)
