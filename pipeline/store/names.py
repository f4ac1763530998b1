"""Judges names before they become paths: those that a person or a stored document gives."""

import re
from typing import Annotated

from pydantic import AfterValidator

from pipeline.errors import BadInput
from pipeline.files import FileEntry

ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")
LONGEST = 255
"""The longest name of a folder, in characters, that the usual disks allow."""


def is_name(text: str) -> bool:
    """Whether the text can name one folder or file, and nothing outside of where that is."""
    return len(text) <= LONGEST and not ILLEGAL.search(text) and text.strip(".") != ""


def required(text: str, what: str) -> str:
    """The text itself; BadInput if it cannot name `what`, such as a run."""
    if not is_name(text):
        raise BadInput(
            f"{text[:LONGEST]!r} cannot name a {what}: use up to {LONGEST} letters, digits, '.', '_' and '-' only"
        )
    return text


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("it is not the name of a folder")
    return text


def _path(text: str) -> str:
    if not all(map(is_name, text.split("/"))):
        raise ValueError("it is not a path below its folder")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A field of a document that becomes one part of a path."""

RelativePath = Annotated[str, AfterValidator(_path)]
"""A field of a document that becomes a path; it leads nowhere but down."""

Files = dict[RelativePath, FileEntry]
"""The files that a document names, by their paths below a folder."""
