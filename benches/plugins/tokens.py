"""Keys and tokens for the plugin `jwt`, made with Python and openssl."""

import base64
import hashlib
import hmac
import json
import subprocess
import time
from pathlib import Path

SECRET = "a secret of thirty-two bytes, at least"


def config_and_token(algorithm: str, folder: Path) -> tuple[str, str]:
    """What the plugin is to be told, as TOML, and a token that it then lets pass."""
    key = folder / f"{algorithm}.pem"
    signed = f"{_part({'alg': algorithm, 'typ': 'JWT'})}.{_part(_claims())}"
    if algorithm == "HS256":
        signature = hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)
        return _config(f'secret = "{SECRET}"'), f"{signed}.{_encoded(signature)}"

    kind = {"RS256": ["rsa", "rsa_keygen_bits:2048"], "ES256": ["ec", "ec_paramgen_curve:P-256"]}[algorithm]
    _openssl("genpkey", "-algorithm", kind[0], "-pkeyopt", kind[1], "-out", str(key))
    signature = _openssl("dgst", "-sha256", "-sign", str(key), content=signed.encode())
    public = _openssl("pkey", "-in", str(key), "-pubout", "-outform", "DER")
    if algorithm == "RS256":
        modulus = _openssl("rsa", "-in", str(key), "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
        members = {"kty": "RSA", "n": _encoded(bytes.fromhex(modulus)), "e": "AQAB"}
    else:
        # An uncompressed point is what a public key on this curve ends with.
        members = {"kty": "EC", "crv": "P-256", "x": _encoded(public[-64:-32]), "y": _encoded(public[-32:])}
        signature = _raw(signature)
    jwk = ", ".join(f'{name} = "{value}"' for name, value in members.items())
    return _config(f"jwks = {{ keys = [{{ {jwk} }}] }}"), f"{signed}.{_encoded(signature)}"


def _config(key: str) -> str:
    return f'{{ {key}, issuer = "https://auth.example.com", audience = "api", claims = {{ sub = "x-user" }} }}'


def _claims() -> dict[str, object]:
    return {"iss": "https://auth.example.com", "aud": "api", "sub": "u-4711", "scope": "read write", "exp": int(time.time()) + 86_400}


def _part(content: dict[str, object]) -> str:
    return _encoded(json.dumps(content, separators=(",", ":")).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _raw(signature: bytes) -> bytes:
    """The two numbers of a signature, of 32 bytes each, in the place of their ASN.1."""
    numbers, rest = [], signature[2:]
    for _ in range(2):
        length = rest[1]
        numbers.append(rest[2 : 2 + length].lstrip(b"\0").rjust(32, b"\0"))
        rest = rest[2 + length :]
    return b"".join(numbers)


def _openssl(*arguments: str, content: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *arguments], input=content, check=True, capture_output=True).stdout
