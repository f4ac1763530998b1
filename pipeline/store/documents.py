"""Stored JSON documents: each holds a digest, and the number of its format, so that a newer one is refused."""

import hashlib
import json
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import CorruptArtifact, NewerFormat

FORMAT = 2
"""The format that is written. Documents without a number have format 1, that of the pipeline's first release."""


class Document(BaseModel):
    """A stored JSON document. Fields that this version does not know are kept when it is written again."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    WHAT: ClassVar[str] = "document"
    format: int = FORMAT

    @classmethod
    def parse(cls, document: dict[str, Any], where: str) -> Self:
        """Create the object from a document of this format or an older one; `where` names it in errors.

        Raises NewerFormat for a newer format, and CorruptArtifact if its fields are missing or of the wrong type.
        """
        found = document.get("format", 1)
        if not isinstance(found, int) or found > FORMAT:
            raise NewerFormat(
                f"{where} was written by a newer version of this pipeline (format {found!s:.20}, this version reads up "
                f"to {FORMAT}): update the pipeline to use it"
            )
        try:
            return cls(**cls.upgraded(document, found) | {"format": FORMAT})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            fault = first["msg"].removeprefix("Value error, ")
            raise CorruptArtifact(
                f"{where} is not a {cls.WHAT} that this version can read ({field}: {fault}): restore it, or "
                "remove the run or version that it belongs to"
            ) from None

    @classmethod
    def upgraded(cls, document: dict[str, Any], found: int) -> dict[str, Any]:
        """Convert the fields of a document of the format `found` to those of this format."""
        return document

    def to_dict(self) -> dict[str, Any]:
        """The document as a dict of JSON values."""
        return self.model_dump(mode="json")


Kind = TypeVar("Kind", bound=Document)


def encode(document: dict[str, Any]) -> bytes:
    """Serialize the document, with a digest of itself, always in the same form."""
    sealed = document | {"sha256": hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()}
    return json.dumps(sealed, indent=2, ensure_ascii=False).encode() + b"\n"


def decode(data: bytes) -> dict[str, Any]:
    """Parse a document that `encode` serialized; ValueError if any byte of it was changed."""
    document: dict[str, Any] = json.loads(data)
    if not isinstance(document, dict) or document.pop("sha256", None) is None or encode(document) != data:
        raise ValueError("the document was changed")
    return document
