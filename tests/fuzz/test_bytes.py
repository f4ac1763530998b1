"""Any content of a source gives posts or an error of one sentence."""

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import csv_records, parquet_subprocess
from tests.fuzz.forked import Forked
from tests.fuzz.forms import CSVS, DUMPS, FORMS, JSON_LINES
from tests.fuzz.promise import kept

VALID = [*JSON_LINES, *(content for form in FORMS.values() for content in form())]

PIECES = ["post", "tags", ",", ";", '"', '""', "\n", "\r\n", "\r", "\t", " ", "", "\\", "'", "\x00", "é", "\U0001f600"]

fields = st.text(max_size=20) | st.sampled_from(PIECES)
tables = st.lists(st.lists(fields, min_size=2, max_size=2), max_size=20)
edits = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4)


def broken(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Damage the content: overwrite, insert, remove and truncate pieces."""
    for at, kind, piece in edits:
        at %= len(content) + 1
        after = {0: at + len(piece), 1: at, 2: at + 8, 3: len(content)}[kind]
        content = content[:at] + piece + content[after:]
    return content


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_subprocess, "start", Forked)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "source"


@given(st.binary(max_size=500))
@settings(max_examples=300, deadline=None)
def test_any_bytes(path: Path, content: bytes) -> None:
    kept(content, path)
    kept(b"post,tags\n" + content, path)
    kept(gzip.compress(content), path, tag_column=None)


@given(st.sampled_from(VALID), edits)
@settings(max_examples=400, deadline=None)
def test_valid_files_with_damage(path: Path, content: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    kept(broken(content, edits), path)


@given(st.sampled_from(CSVS), edits)
@settings(max_examples=200, deadline=None)
def test_damaged_csv_within_gzip(path: Path, content: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    kept(gzip.compress(broken(content, edits)), path)


@given(st.sampled_from(DUMPS), edits)
@settings(max_examples=300, deadline=None)
def test_damaged_dumps(path: Path, content: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    kept(broken(content, edits), path, of_dump=True)
    kept(content.replace(b"answer", edits[0][2] * 3), path, of_dump=True)


@given(tables, st.sampled_from(",;\t|"), st.sampled_from(['"', "'"]), st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=200, deadline=None)
def test_csv_of_every_dialect(path: Path, table: list[list[str]], delimiter: str, quote: str, line_break: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quotechar=quote, lineterminator=line_break)
    writer.writerow(["post", "tags"])
    writer.writerows(table)
    refusal = kept(text.getvalue().encode(errors="surrogatepass"), path)
    if (delimiter, quote) == (",", '"'):
        assert refusal is None


@given(st.lists(st.sampled_from(PIECES), max_size=60))
@settings(max_examples=200, deadline=None)
def test_csv_of_pieces_with_records_near_the_limit(path: Path, pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "LONGEST_RECORD", 30)
        kept(("post,tags\n" + "".join(pieces)).encode(), path, max_bytes=100)
