"""Fuzzes the readers by Atheris: `python -m tests.fuzz.harness csv|gzip|parquet FOLDER [libFuzzer's options]`."""

import gzip
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline.sources"]):
    from pipeline.sources import csv_records, parquet_subprocess

from tests.fuzz.forked import Forked
from tests.fuzz.forms import FORMS
from tests.fuzz.promise import kept

VALID = FORMS["parquet"]()

LIMITS = ["-timeout=20", "-rss_limit_mb=1024", "-max_len=8192"]
"""Seconds for one input, peak memory, and the bytes of an input."""


def main(form: str, folder: Path, options: list[str]) -> None:
    """Mutate the format's valid files until libFuzzer's limits; a finding ends it, and is saved in the folder.

    The folder must be a relative path: children change to another folder, so that they cannot save findings.
    """
    corpus = folder / form
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(FORMS[form]()):
        (corpus / f"valid-{number}").write_bytes(content)
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else folder.absolute(), f"tagger-fuzz-{form}")  # noqa: S108 - in memory, for speed
    # libFuzzer takes an uncaught C++ exception of a child for a finding; the parent checks how the child ended.
    os.register_at_fork(after_in_child=lambda: os.chdir("/proc"))
    parquet_subprocess.start = Forked

    def once(content: bytes) -> None:
        csv_records.LONGEST_RECORD = 400 if len(content) % 2 else 2**20
        kept(content, path, tag_column="tags" if len(content) % 3 else None)

    mutators = {"gzip": _repacked, "parquet": _footed}
    extra = {"custom_mutator": mutators[form]} if form in mutators else {}
    arguments = [sys.argv[0], *LIMITS, f"-artifact_prefix={folder}/{form}-", *options, str(corpus)]
    atheris.Setup(arguments, once, **extra)
    atheris.Fuzz()


def _repacked(content: bytes, size: int, seed: int) -> bytes:
    """Mutate the compressed bytes or, half of the time, the content, and compress it again."""
    if seed % 2:
        return atheris.Mutate(content, size)
    return gzip.compress(atheris.Mutate(_unpacked(content), size))[:size]


def _unpacked(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(content, 2**16)
    except zlib.error:
        return b"post,tags\n"


def _footed(content: bytes, size: int, seed: int) -> bytes:
    """Mutate either the metadata or the pages of a Parquet file, and correct the metadata's length.

    Half of the mutations start from a valid file, because libFuzzer does not see Arrow's code paths and so keeps few
    files in its corpus.
    """
    if seed % 16 < 8:
        content = VALID[seed // 16 % len(VALID)]
    if seed % 8 == 0 or len(content) < 12:
        return atheris.Mutate(content, size)
    length = int.from_bytes(content[-8:-4], "little")
    middle = max(4, len(content) - 8 - length)
    pages, footer = content[4:middle], content[middle:-8]
    if seed % 8 < 5:
        footer = _changed(footer, size - len(pages) - 12, seed)
    else:
        pages = _changed(pages, len(pages), seed)
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _changed(part: bytes, size: int, seed: int) -> bytes:
    """Mutate the bytes by libFuzzer, or replace one to three of them without changing the length."""
    if seed & 64 or not part:
        return atheris.Mutate(part, max(1, size))
    dice, bytes_ = random.Random(seed), bytearray(part)  # noqa: S311 - dice, no secret
    for _ in range(dice.randint(1, 3)):
        bytes_[dice.randrange(len(part))] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
    return bytes(bytes_)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
