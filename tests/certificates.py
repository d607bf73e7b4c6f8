"""Certificates that nobody trusts, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which

import pytest


def self_signed(folder: Path, host: str) -> Path:
    """A self-signed certificate for this host, key included, as a file of the folder."""
    if which("openssl") is None:
        pytest.skip("openssl is not installed")
    pem = folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN={host} -addext subjectAltName=DNS:{host}"
    )
    subprocess.run(
        [*command.split(), "-keyout", pem, "-out", pem], check=True, capture_output=True, timeout=20
    )
    return pem
