"""Certificates of the tests' own: for content credentials, and one for HTTPS that nobody trusts."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path
from shutil import which
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class SigningFiles(NamedTuple):
    """PEM files: the signer's certificate with its root, and the signer's key."""

    certificate: Path
    key: Path

    def settings(self) -> dict[str, str]:
        return {"label_c2pa_certificate": str(self.certificate), "label_c2pa_key": str(self.key)}


def make_signer(folder: Path, *, valid_days: int = 30) -> SigningFiles:
    """A new signer; a negative number makes one that ended so many days ago."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Root of the tests", root_key, root_key, valid_days, is_root=True)
    signer = _certificate("Signer of the tests", key, root_key, valid_days, is_root=False)
    folder.mkdir(parents=True, exist_ok=True)
    files = SigningFiles(folder / "chain.pem", folder / "key.pem")
    files.certificate.write_bytes(
        b"".join(found.public_bytes(serialization.Encoding.PEM) for found in (signer, root))
    )
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def self_signed(folder: Path, host: str) -> Path:
    """A self-signed certificate for this host, made by openssl, key included, as a file of the folder."""
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


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    root_key: ec.EllipticCurvePrivateKey,
    valid_days: int,
    *,
    is_root: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("Root of the tests"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=60))
        .not_valid_after(now + dt.timedelta(days=valid_days))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage),
            critical=True,
        )
    )
    if not is_root:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(root_key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
