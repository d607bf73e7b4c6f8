"""Content credentials: what is signed, and what is found wrong at the start."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from c2pa import Reader
from structlog.testing import capture_logs

from agent import __version__
from agent.labels.credentials import CannotSign, Credentials
from agent.labels.labeller import Labeller
from agent.settings import SettingsError
from tests.certificates import SigningFiles, make_signer
from tests.integration.agent.service import settings_of
from tests.unit.labels.files import MODES, encode, noise


@pytest.mark.parametrize("kind", list(MODES))
def test_manifest_says_who_made_the_picture_and_that_a_model_did(kind: str, credentials: Credentials) -> None:
    media_type = f"image/{kind.lower()}"
    data = encode(noise((200, 200)), kind)
    signed = credentials.sign(data, media_type, "ComfyUI_00001_")
    with Reader(media_type, io.BytesIO(signed)) as reader:
        manifest = reader.get_active_manifest()
        assert reader.get_validation_state() == "Valid"
    assert manifest is not None
    assert manifest["title"] == "ComfyUI_00001_"
    (generator,) = manifest["claim_generator_info"]
    assert (generator["name"], generator["version"]) == ("comfyui-agent", __version__)
    (actions,) = [found for found in manifest["assertions"] if found["label"].startswith("c2pa.actions")]
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert "thumbnail" not in manifest
    assert manifest["signature_info"]["common_name"] == "Signer of the tests"
    assert len(signed) - len(data) < 8000
    changed = bytearray(signed)
    changed[-30 if kind == "PNG" else -5] ^= 1  # a bit of the picture
    with Reader(media_type, io.BytesIO(bytes(changed))) as reader:
        assert reader.get_validation_state() == "Invalid"


def test_what_cannot_sign_is_found_at_the_start(tmp_path: Path, signer: SigningFiles) -> None:
    other, old = make_signer(tmp_path / "other"), make_signer(tmp_path / "old", valid_days=-1)
    wrong = {
        "no key of this certificate": (signer.certificate, other.key, "es256"),
        "ended": (old.certificate, old.key, "es256"),
        "other algorithm": (signer.certificate, signer.key, "ps256"),
        "swapped": (signer.key, signer.certificate, "es256"),
        "missing": (tmp_path / "nowhere.pem", signer.key, "es256"),
    }
    key = signer.key.read_text().splitlines()[1]
    for why, (certificate, private, algorithm) in wrong.items():
        settings = settings_of(
            label_c2pa="warn",
            label_c2pa_certificate=str(certificate),
            label_c2pa_key=str(private),
            label_c2pa_algorithm=algorithm,
        )
        with capture_logs() as logs, pytest.raises(SettingsError, match="AGENT_LABEL_C2PA_KEY") as found:
            Labeller(settings)
        assert key not in f"{found.value} {logs}", why
        assert key not in repr(found.value.__context__), why


def test_library_is_an_extra(monkeypatch: pytest.MonkeyPatch, signer: SigningFiles) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(CannotSign, match=r"comfyui-agent\[c2pa\]"):
        Credentials(str(signer.certificate), str(signer.key), "es256")
