"""Watches what leaves a container for the credentials that the platform handed to it (section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.gateway.function import Account


class LeakDetector:
    """Notes where a credential was seen; `found` stays empty as long as there is none."""

    def __init__(self, account: Account) -> None:
        self._mark = account.mark.encode()
        self.found: list[str] = []

    def look_at(self, where: str, data: bytes | str) -> None:
        raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        if self._mark in raw:
            at = raw.find(self._mark)
            self.found.append(f"{where}: {raw[max(0, at - 200) : at + 50]!r}")

    def look_at_headers(self, where: str, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            self.look_at(f"{where}: header", f"{name}: {value}")

    def look_at_files(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.look_at(str(path), path.read_bytes())
