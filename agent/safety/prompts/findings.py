"""What is found in the texts of a workflow, and what comes of it: a refusal, or a warning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.errors import ClassifierUnavailable, PromptRefused, PromptTooLong
from agent.safety.prompts.settings import PromptSettings
from agent.safety.prompts.texts import Text
from agent.safety.settings import Mode
from agent.safety.verdict import Action, Verdict
from comfyui.catalog import Catalog
from comfyui.workflow import LONGEST_NAME, Workflow

#: Names the steps in verdicts and metrics: the review as a whole, and the lists.
PROMPTS, RULES = "prompts", "prompt-rules"

#: What is found is told of so many places of one workflow; one is enough to refuse it.
MOST_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a step found. `error` is what the task is refused of, if it is."""

    verdicts: list[Verdict] = field(default_factory=list)
    error: PromptRefused | PromptTooLong | ClassifierUnavailable | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checked(Reviewed):
    """What the lists found, and what was looked at: the positive texts, found by what this catalogue knows of the
    engine's nodes. With another one there may be others, and the workflow is to be checked again."""

    mode: Mode = Mode.OFF
    catalog: Catalog | None = None
    texts: Sequence[Text] = field(default=(), repr=False)

    def holds_for(self, mode: Mode, catalog: Catalog | None) -> bool:
        return self.mode is mode and self.catalog is catalog


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found in one text. `term`: the line of the list."""

    text: Text
    step: str
    category: str
    score: float
    ms: float
    term: str | None = None

    def lasting(self, ms: float) -> Finding:
        """The same, found by a look that took so long."""
        return replace(self, ms=ms)


def judge(workflow: Workflow, mode: Mode, settings: PromptSettings, found: Sequence[Finding]) -> Reviewed:
    """What comes of findings, of which there is at least one."""
    is_refused = mode is Mode.ENFORCE
    verdicts = [
        Verdict(
            step=finding.step,
            category=finding.category,
            score=finding.score,
            action=Action.REJECT if is_refused else Action.WARN,
            ms=finding.ms,
            node_id=finding.text.node_id,
            detail=_say(finding, workflow, settings),
        )
        for finding in found[:MOST_FINDINGS]
    ]
    if is_refused:
        error = _refusal(found[0], workflow, settings)
        error.verdicts = tuple(verdicts)
        return Reviewed(verdicts, error)
    warnings = [
        {
            "code": "PromptFlagged",
            "detail": verdict.detail,
            "node_id": verdict.node_id,
            "category": verdict.category,
        }
        for verdict in verdicts
    ]
    return Reviewed(verdicts, warnings=warnings)


def _refusal(finding: Finding, workflow: Workflow, settings: PromptSettings) -> PromptRefused:
    return PromptRefused(
        f"This server does not make what the prompt asks for. {_say(finding, workflow, settings)}",
        node_id=finding.text.node_id,
        node_title=workflow.title(finding.text.node_id),
        input=finding.text.input_name[:LONGEST_NAME],
        category=finding.category,
        step=finding.step,
        term=finding.term if settings.safety_show_terms else None,
    )


def _say(finding: Finding, workflow: Workflow, settings: PromptSettings) -> str:
    node_id = finding.text.node_id
    name = finding.text.input_name[:LONGEST_NAME]
    where = f'Input "{name}" of node "{node_id}" ({workflow.title(node_id)})'
    if finding.step != RULES:
        return f'{where} is "{finding.category}" to {finding.step}.'
    if settings.safety_show_terms and finding.term:
        return f'{where} holds "{finding.term}" of the list "{finding.category}".'
    return f'{where} holds a term of the list "{finding.category}".'


def too_long(
    workflow: Workflow,
    mode: Mode,
    catalog: Catalog | None,
    settings: PromptSettings,
    node_id: str,
    input_name: str,
) -> Checked:
    """What comes of a workflow with more text than is reviewed. None of it is looked at: what was left out could be
    what matters."""
    limit = settings.safety_prompt_characters
    title = workflow.title(node_id)
    detail = (
        f"The texts of the workflow have more than {limit} characters together, too many to be reviewed; most of them "
        f'are in input "{input_name[:LONGEST_NAME]}" of node "{node_id}" ({title}).'
    )
    error = PromptTooLong(
        f"{detail} Shorten them, or raise AGENT_SAFETY_PROMPT_CHARACTERS.",
        node_id=node_id,
        node_title=title,
        input=input_name[:LONGEST_NAME],
        limit=limit,
    )
    if mode is Mode.ENFORCE:
        return Checked(error=error, mode=mode, catalog=catalog)
    verdict = Verdict(step=PROMPTS, category="too-long", action=Action.WARN, node_id=node_id, detail=detail)
    warning = {"code": PromptTooLong.code, "detail": detail, "node_id": node_id}
    return Checked([verdict], None, [warning], mode, catalog)
