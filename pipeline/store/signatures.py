"""Signs the store's documents with a private key, and refuses documents that no trusted key has signed.

TAGGER_SIGNING_KEY names the file of a private key, and TAGGER_TRUSTED_KEYS files of public keys, separated by commas:
PEM with a key on an elliptic curve, as `openssl ecparam -name prime256v1 -genkey` makes it. A signature is ECDSA with
SHA-256 over a document's place in the store and its content, so a signed document cannot be put in another's place.
Files are signed by the documents that hold their sha256.
"""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput, CorruptArtifact, Forbidden

SIGNING_KEY, TRUSTED_KEYS = "TAGGER_SIGNING_KEY", "TAGGER_TRUSTED_KEYS"
FIELD = "signature"
INNER = re.compile(r"(?:^|/)(tunings/[^/]+/trials)/?$")
"""The folder of a store that is a store itself."""

CURE = "if it was written before the store was signed, see that it is right and run `tagger sign`"


@dataclass(frozen=True)
class Keys:
    """The private key to sign with, None for none, and the trusted public keys by their ids; of `cryptography`."""

    signing: Any
    signing_path: Path | None
    trusted: Mapping[str, Any]
    trusted_paths: tuple[Path, ...]


def keys() -> Keys:
    """The keys that the environment names; BadInput where one cannot be read, or where a variable names none.

    An empty variable counts as one that is not set, as everywhere; anything else must name a key, because a list that
    is blank by mistake would trust everything.
    """
    return _keys(os.environ.get(SIGNING_KEY, ""), os.environ.get(TRUSTED_KEYS, ""))


@cache
def _keys(signing: str, trusted: str) -> Keys:
    private = _named(signing, SIGNING_KEY) if signing else None
    paths = tuple(_named(path, TRUSTED_KEYS) for path in trusted.split(",")) if trusted else ()
    public = [_load(path, TRUSTED_KEYS) for path in paths]
    return Keys(
        _load(private, SIGNING_KEY, private=True) if private else None,
        private,
        {key_id(key): key for key in public},
        paths,
    )


def _named(path: str, variable: str) -> Path:
    if not path.strip():
        raise BadInput(f"{variable} is set, but it, or a part of it between commas, names no file: correct or unset it")
    return Path(path.strip()).expanduser()


def _load(path: Path, variable: str, *, private: bool = False) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    wanted = ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey
    try:
        data = path.read_bytes()
        key = serialization.load_pem_private_key(data, None) if private else serialization.load_pem_public_key(data)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{variable}: {path} cannot be read as a key in PEM ({_line(error)}): correct it") from None
    if not isinstance(key, wanted):
        raise BadInput(f"{variable}: the key in {path} is not on an elliptic curve: make one as SECURITY.md says")
    return key


def _line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:100]


def key_id(public: Any) -> str:
    """A public key's id: the first digits of the sha256 of its DER form."""
    from cryptography.hazmat.primitives import serialization

    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def signed(path: str, document: dict[str, Any], shown: str) -> dict[str, Any]:
    """The document with its signature, if there is a signing key.

    Raises Forbidden where only signed documents are trusted and there is no key to sign with.
    """
    found = keys()
    if found.signing is None:
        if found.trusted:
            raise Forbidden(
                f"{shown} cannot be written: {TRUSTED_KEYS} trusts signed documents only, so set {SIGNING_KEY} to the "
                "private key of one of them"
            )
        return document
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    made = found.signing.sign(_message(path, document), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    key = key_id(found.signing.public_key())
    return document | {FIELD: {"key": key, "value": base64.b64encode(made).decode()}}


def unsigned(path: str, document: dict[str, Any], shown: str) -> dict[str, Any]:
    """The document without its signature; CorruptArtifact if keys are trusted and none of them signed it here."""
    content = {name: value for name, value in document.items() if name != FIELD}
    trusted = keys().trusted
    if trusted and (fault := _fault(path, content, document.get(FIELD), trusted)):
        raise CorruptArtifact(f"{shown} is not trusted, because {fault}: restore it; {CURE}")
    return content


def place_of(root: str) -> str:
    """The place of a store in another one, as `tunings/a/trials/`; empty if it is part of no other.

    The path alone decides it: documents are signed for the same place whichever store was opened.
    """
    inner = INNER.search(root)
    return f"{inner[1]}/" if inner else ""


def _fault(path: str, content: dict[str, Any], signature: Any, trusted: Mapping[str, Any]) -> str | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(signature, dict):
        return "it is not signed"
    key = trusted.get(str(signature.get("key")))
    if key is None:
        return f"the key {str(signature.get('key'))[:16]}, which signed it, is not one of {TRUSTED_KEYS}"
    try:
        value = base64.b64decode(str(signature.get("value")), validate=True)
        key.verify(value, _message(path, content), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error):
        return "its signature is not that of its content and place"
    return None


def _message(path: str, document: dict[str, Any]) -> bytes:
    content = json.dumps(document, sort_keys=True)
    return f"tagger document 1\n{path}\n{content}".encode()
