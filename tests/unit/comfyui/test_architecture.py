"""Who may import whom (design section 3), read from the source; and what the service imports to start."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
OURS = ("agent", "comfyui", "workflows", "tests")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_comfyui_does_not_know_the_agent() -> None:
    for path in modules("comfyui"):
        assert [
            m for m in imported(path) if any(is_within(m, p) for p in ("agent", "workflows", "tests"))
        ] == [], path


def test_the_simulator_imports_nothing_else_of_ours() -> None:
    for path in modules("comfyui/simulator"):
        ours = [m for m in imported(path) if m.partition(".")[0] in OURS]
        assert [m for m in ours if not is_within(m, "comfyui.simulator")] == [], path


def test_nobody_imports_the_simulator() -> None:
    for package in ("agent", "comfyui"):
        for path in modules(package):
            if not path.is_relative_to(ROOT / "comfyui/simulator"):
                assert [m for m in imported(path) if is_within(m, "comfyui.simulator")] == [], path


def test_the_product_does_not_import_its_tests() -> None:
    for package in ("agent", "comfyui", "workflows"):
        for path in modules(package):
            assert [m for m in imported(path) if is_within(m, "tests")] == [], path


def test_httpx_is_imported_in_one_place() -> None:
    users = [
        path
        for package in ("agent", "comfyui")
        for path in modules(package)
        if "httpx" in set(imported(path))
    ]
    assert users == [ROOT / "comfyui/http.py"]
