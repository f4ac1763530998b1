"""Finds the store whose feedback a run learns, or a watch is about: it may be what the source names."""

import re
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.source_policy import is_url
from pipeline.sources.source import Kind, Source
from pipeline.store.feedback import TAGGED
from pipeline.store.objects import Store

_WHOLE_FOLDER = re.compile(r"(/\*\*)?(/\*(\.parquet)?)?/*$")
"""What may follow a folder's name where all its files are meant."""


def store_for(settings: Settings, source: Source, own: Store) -> Store | None:
    """The store whose feedback a run learns, besides its source or as its source; None for none."""
    return own if settings.learn_feedback else store_of(source, own)


def store_of(source: Source, own: Store) -> Store | None:
    """The store whose TAGGED the source is, in any spelling, as a folder or a pattern; None for another source.

    None also for another store's that a policy restricts: it is read as any folder of files, which is decoded apart.
    """
    folder = _WHOLE_FOLDER.sub("", source.text)
    if not is_url(folder):
        folder = str(Path(folder).expanduser().resolve())
    if source.kind is not Kind.FILES or not folder.endswith(f"/{TAGGED}"):
        return None
    url = folder.removesuffix(f"/{TAGGED}")
    # The own store may have been opened with keys that the environment does not have.
    own_url = own.url if is_url(own.url) else str(Path(own.url).resolve())
    if own_url.rstrip("/") == url:
        try:
            _ = source.place
        except BadInput:
            return None  # ingest says why the policy refuses it
        return own
    return Store(url) if source.allowed is None else None
