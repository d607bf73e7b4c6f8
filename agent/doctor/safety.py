"""Checks of the review: is there what the settings ask for, and does it work."""

from __future__ import annotations

from agent.build import engine_folders
from agent.doctor.finding import Finding, advice, ok, problem
from agent.safety.classifiers.build import build_image_classifiers
from agent.safety.classifiers.classifier import ClassifierDown
from agent.safety.prompts.review import PromptReview
from agent.safety.settings import Mode
from agent.settings import Role, Settings, SettingsError
from comfyui.errors import EngineFailedError


def check_prompts(settings: Settings) -> list[Finding]:
    """Whether the lists can be read and the classifiers of prompts are installed. Nobody is asked for anything."""
    if not (settings.safety_terms or settings.safety_prompt_classifiers or settings.safety_negative):
        return [ok("prompts", "Prompts are not reviewed here.")]
    try:
        review = PromptReview(settings)
    except ValueError as exc:
        return [problem("prompts", f"{exc}.", "Correct it: the service will not start.")]
    if settings.safety_terms and settings.safety_prompts is Mode.OFF:
        remedy = "Set AGENT_SAFETY_PROMPTS to warn or enforce, unless only requests shall ask for it."
        return [advice("prompts", "There are lists of terms, and AGENT_SAFETY_PROMPTS is off.", remedy)]
    return [ok("prompts", f"Prompts can be reviewed: {review.summary}.")]


async def check_review(settings: Settings) -> list[Finding]:
    """Whether pictures can be reviewed as the settings say. Nothing of others is asked for anything."""
    modes = (settings.safety_images, settings.safety_failed_images)
    if settings.role is Role.FRONT or (set(modes) == {Mode.OFF} and not settings.safety_image_classifiers):
        return [ok("review", "Pictures are not reviewed here.")]
    try:
        classifiers = build_image_classifiers(settings)
    except SettingsError as exc:
        return [problem("review", str(exc), "Correct it: the service will not start.")]
    found = []
    for classifier in classifiers:
        try:
            await classifier.prepare()
        except ClassifierDown as down:
            text = f"The classifier {classifier.step} cannot be used: {down.reason}."
            found.append(problem("review", text, "Correct its settings: pictures cannot be classified."))
        finally:
            await classifier.close()
    if settings.safety_images is Mode.ENFORCE and not _knows_folders(settings):
        text = "The engine's folders are not known: files of pictures that are refused or blurred stay there."
        remedy = "Set COMFYUI_BASE_DIRECTORY, if the agent can reach the engine's files."
        found.append(advice("review", text, remedy))
    if not found:
        named = ", ".join(["failed-image", *(c.step for c in classifiers)])
        found.append(ok("review", f"Pictures can be reviewed by {named}."))
    return found


def _knows_folders(settings: Settings) -> bool:
    try:
        return engine_folders(settings) is not None
    except EngineFailedError:
        return True  # named by the check of the engine
