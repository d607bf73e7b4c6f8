"""What can go wrong with a manifest, a model or a node. The text is a sentence for the operator."""

from __future__ import annotations


class ManifestError(ValueError):
    """The manifest is wrong; each argument is a sentence that names file, entry and remedy."""


class ProvisionError(Exception):
    """One model or node could not be put in place. The others are not concerned."""


class TryAgain(ProvisionError):
    """The same request may succeed in a moment; `after_seconds` is what the server asked for, if it did."""

    def __init__(self, sentence: str, after_seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.after_seconds = after_seconds
