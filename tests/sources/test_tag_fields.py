"""A tag field means the same in every format: the tags of a post, and whether it is kept, rejected or left out."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput
from pipeline.sources import reader, rows, text_columns
from pipeline.sources.blocks import Block, Columns
from pipeline.sources.source import Source

LISTS: list[list[str | None]] = [
    ["python"],
    ["python", "pandas"],
    [" java\t"],
    ["java", "java", None],
    [],
    [None],
    ["go"],
    ["java", "python", "go"],
    ["", "go"],
    ["Java"],
    ["ruby on rails"],
    ["a\nb"],
    ["List<int>"],
    ["c++", "x"],
]
POSTS = [f"post {number}" for number in range(1, len(LISTS) + 1)]
EMPTY = [("", ["python"]), (" ", ["go"]), ("", [])]
"""Rows without a text come last, with a tag to keep, with another, and without one."""


def bars(tags: list[str | None]) -> str:
    return "|".join(tag or "" for tag in tags)


def outer_bars(tags: list[str | None]) -> str:
    return f"|{bars(tags)}|"


def brackets(tags: list[str | None]) -> str:
    """As the Data Explorer writes them; a tag with brackets of its own cannot be among others."""
    return bars(tags) if "List<int>" in tags else "".join(f"<{tag or ''}>" for tag in tags)


Form = Callable[[list[str | None]], object]


def as_csv(path: Path, posts: list[str], tags: list[object]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("post", "tags"), *zip(posts, tags, strict=True)])
    path.write_text(text.getvalue(), newline="")


def as_gzip(path: Path, posts: list[str], tags: list[object]) -> None:
    as_csv(path, posts, tags)
    path.write_bytes(gzip.compress(path.read_bytes()))


def as_json(path: Path, posts: list[str], tags: list[object]) -> None:
    path.write_text("".join(f"{json.dumps({'post': p, 'tags': t})}\n" for p, t in zip(posts, tags, strict=True)))


def as_dump(path: Path, posts: list[str], tags: list[object]) -> None:
    lines = [
        f"<row PostTypeId='1' Title={quoteattr(post)} Tags={quoteattr(str(tag), {chr(10): '&#10;', chr(9): '&#9;'})}/>"
        for post, tag in zip(posts, tags, strict=True)
    ]
    path.write_text(f"<posts>{''.join(lines)}</posts>")


def as_parquet(kind: pa.DataType) -> Callable[[Path, list[str], list[object]], None]:
    def write(path: Path, posts: list[str], tags: list[object]) -> None:
        column = pa.array(tags, kind) if pa.types.is_nested(kind) else pa.array(tags).cast(kind)
        pq.write_table(pa.table({"post": posts, "tags": column}), path)
        assert pq.read_schema(path).field("tags").type.id == kind.id

    return write


TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.binary()]
NESTED = [
    pa.list_(pa.string()),
    pa.large_list(pa.large_string()),
    pa.list_(pa.binary()),
    pa.list_(pa.dictionary(pa.int32(), pa.string())),
    pa.list_view(pa.string()),
]
WRITERS = {
    "CSV": (as_csv, [bars, outer_bars, brackets]),
    "gzip": (as_gzip, [bars]),
    "JSON text": (as_json, [bars, brackets]),
    "JSON list": (as_json, [list]),
    "Posts.xml": (as_dump, [bars, outer_bars, brackets]),
    **{f"Parquet {kind}": (as_parquet(kind), [bars, brackets]) for kind in TEXTS},
    **{f"Parquet {kind}": (as_parquet(kind), [list]) for kind in NESTED},
}
FORMATS = [
    pytest.param(writer, form, id=f"{name} {form.__name__}")
    for name, (writer, forms) in WRITERS.items()
    for form in forms
]

BOTH_WAYS = [("empty tag", 5), ("empty tag", 6), ("line break in tag", 12), ("empty post", 15), ("empty post", 16)]
BOTH_WAYS += [("empty post", 17)]
ONE = {1: "python", 3: "java", 4: "java", 7: "go", 9: "go", 10: "Java", 11: "ruby on rails", 13: "List<int>"}
SEVERAL = ONE | {2: "pandas|python", 8: "go|java|python", 14: "c++|x"}
KEEP = frozenset({"python", "java", "nobody has this"})
CASES = {
    "one tag": (
        frozenset(),
        False,
        ONE,
        [*BOTH_WAYS, ("several tags", 2), ("several tags", 8), ("several tags", 14)],
        0,
    ),
    "several tags": (frozenset(), True, SEVERAL, BOTH_WAYS, 0),
    "tags to keep": (KEEP, False, {1: "python", 2: "python", 3: "java", 4: "java"}, [("empty post", 15)], 12),
    "several to keep": (
        KEEP,
        True,
        {1: "python", 2: "python", 3: "java", 4: "java", 8: "java|python"},
        [("empty post", 15)],
        11,
    ),
}


def check(blocks: list[Block], case: str) -> None:
    _, _, kept, rejected, left_out = CASES[case]
    accepted = [post for block in blocks for post in block.posts.to_pylist()]
    faulty = [(row["reason"], row["row"]) for block in blocks for row in block.rejected.to_pylist()]
    assert {post["row"]: post["tag"] for post in accepted} == kept
    assert sorted(faulty, key=lambda fault: fault[1]) == sorted(rejected, key=lambda fault: fault[1])
    assert sum(block.left_out for block in blocks) == left_out


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("write", "form"), FORMATS)
def test_the_same_posts_are_the_same_in_every_format(tmp_path: Path, write, form: Form, case: str) -> None:
    keep, several, *_ = CASES[case]
    posts, lists = [*POSTS, *(post for post, _ in EMPTY)], [*LISTS, *(tags for _, tags in EMPTY)]
    write(tmp_path / "posts", posts, [form(tags) for tags in lists])
    source = Source.parse(str(tmp_path / "posts"))
    check(list(reader.read(source, text_column="post", tag_column="tags", keep=keep, several=several)), case)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", [bars, brackets, list], ids=lambda form: form.__name__)
def test_of_the_batches_that_bigquery_sends_too(form: Form, case: str) -> None:
    """What bigquery_rows does with each of them."""
    keep, several, *_ = CASES[case]
    posts, lists = [*POSTS, *(post for post, _ in EMPTY)], [*LISTS, *(tags for _, tags in EMPTY)]
    kind = pa.list_(pa.string()) if form is list else pa.string()
    batch = pa.record_batch({"post": posts, "tags": pa.array([form(tags) for tags in lists], kind)})
    columns = Columns("post", "tags", keep, several)
    check([rows.decoded_block(text_columns.decoded(batch, "it", columns), 1, columns)], case)


@pytest.mark.parametrize("case", ["tags to keep", "several to keep", "one tag"])
def test_synthetic_posts_are_no_exception(case: str) -> None:
    keep, several, *_ = CASES[case]
    keep = keep and frozenset({"python", "java"})
    read = {"text_column": "post", "tag_column": "tags"}
    source = Source.parse("sample://posts?rows=2000&seed=3&tags=3")
    every = [post for block in reader.read(source, several=True, **read) for post in block.posts.to_pylist()]
    kept = {post["row"]: {*post["tag"].split("|")} & (keep or {*post["tag"].split("|")}) for post in every}
    wanted = {row: "|".join(sorted(tags)) for row, tags in kept.items() if tags and (several or len(tags) == 1)}
    blocks = list(reader.read(source, keep=keep, several=several, **read))
    assert {post["row"]: post["tag"] for block in blocks for post in block.posts.to_pylist()} == wanted
    others = 2000 - len(wanted)
    rejected = sum(block.rejected.num_rows for block in blocks)
    assert (sum(block.left_out for block in blocks), rejected) == ((others, 0) if keep else (0, others))


SIMPLE = [
    pa.nulls(3),
    pa.nulls(3, pa.float64()),
    pa.nulls(3, pa.int32()),
    pa.nulls(3, pa.string()),
    pa.DictionaryArray.from_arrays(pa.nulls(3, pa.int32()), pa.array([], pa.string())),
]
OF_LISTS = [
    pa.nulls(3, pa.list_(pa.string())),
    pa.nulls(3, pa.list_(pa.null())),
    pa.array([[], [None], None], pa.list_(pa.null())),
]


@pytest.mark.parametrize(
    ("name", "column"),
    [*(("post", column) for column in SIMPLE), *(("tags", column) for column in SIMPLE + OF_LISTS)],
    ids=lambda part: str(getattr(part, "type", part)),
)
def test_a_column_without_any_value_has_rejected_rows(tmp_path: Path, name: str, column: pa.Array) -> None:
    as_csv(tmp_path / "a.csv", ["how", "why"], ["java", "c"])
    columns = {"post": pa.array(["x", "y", "z"]), "tags": pa.array(["java"] * 3)} | {name: column}
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    as_csv(tmp_path / "c.csv", ["so", ""], ["", ""])
    blocks = list(reader.read(Source.parse(str(tmp_path)), text_column="post", tag_column="tags"))
    assert [post["tag"] for block in blocks for post in block.posts.to_pylist()] == ["java", "c"]
    fault = {"post": "empty post", "tags": "empty tag"}[name]
    assert [row["reason"] for block in blocks for row in block.rejected.to_pylist()] == [
        *[fault] * 3,
        "empty tag",
        "empty post",
    ]


def test_a_column_of_numbers_is_refused_even_if_some_are_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"post": ["a", "b"], "tags": [None, 1.5]}), tmp_path / "posts.parquet")
    with pytest.raises(BadInput, match="has double in column 'tags', not text: set tag_column"):
        list(reader.read(Source.parse(str(tmp_path / "posts.parquet")), text_column="post", tag_column="tags"))
