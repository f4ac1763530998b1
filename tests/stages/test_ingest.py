"""Ingest keeps the posts, rejects faulty rows, and refuses sources that nothing can be learned from."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.data import posts
from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.sources.source import Source
from pipeline.stages import accounting, ingest
from pipeline.stages.context import Context
from tests.conftest import context_of

HEADER = "post,tags\n"


def run(tmp_path: Path, content: str, **settings: object) -> ingest.Ingested:
    source = tmp_path / "posts.csv"
    source.write_text(content)
    chosen = Settings(source=str(source), **settings)
    return ingest.run({}, tmp_path / "out", chosen, context_of(chosen))


def refusal(tmp_path: Path, content: str, **settings: object) -> str:
    with pytest.raises(BadInput) as caught:
        run(tmp_path, content, **settings)
    return str(caught.value).replace(f"{tmp_path}/", "")


def rows_of(tmp_path: Path, kind: str) -> list[tuple[object, ...]]:
    batches = posts.batches(tmp_path / "out", kind)
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def posts_of(tmp_path: Path) -> list[tuple[object, ...]]:
    """The train posts, then the test posts."""
    return [row for side in posts.SIDES for row in rows_of(tmp_path, posts.of_side(side))]


def test_posts_and_rejected_rows(tmp_path: Path) -> None:
    content = HEADER + "how,c#\nwhy,java\n,java\nwhere,java\nwhen,\nwho,\nso,php\n"
    ingested = run(tmp_path, content, max_rejected_fraction=0.5)
    assert ingested == ingest.Ingested(
        posts=4,
        rejected=3,
        rejected_by_reason={"empty tag": 2, "empty post": 1},
        posts_by_tag={"java": 2, "c#": 1, "php": 1},
        rows=7,
        left_out=0,
        synthetic=False,
        median_characters=3.0,
        duplicates=0.0,
        leaked=0.0,
        warnings=[],
    )
    assert list(ingested.rejected_by_reason) == ["empty tag", "empty post"]
    assert list(ingested.posts_by_tag) == ["java", "c#", "php"]
    assert json.loads(json.dumps(asdict(ingested))) == asdict(ingested)
    assert posts_of(tmp_path) == [("how", "c#", 1), ("why", "java", 2), ("where", "java", 4), ("so", "php", 7)]
    assert rows_of(tmp_path, "rejected") == [
        (3, "empty post", ",java"),
        (5, "empty tag", "when,"),
        (6, "empty tag", "who,"),
    ]


def test_without_rejected_rows_an_empty_file_is_written(tmp_path: Path) -> None:
    assert run(tmp_path, HEADER + "how,c#\nwhy,java\n").rejected == 0
    assert posts.shards(tmp_path / "out", "rejected")
    assert rows_of(tmp_path, "rejected") == []


def test_a_source_of_many_blocks(tmp_path: Path) -> None:
    ingested = run(tmp_path, HEADER + "".join(f"how {at},c#\nwhy {at},java\n" for at in range(5000)))
    assert (ingested.rows, ingested.posts_by_tag) == (10_000, {"c#": 5000, "java": 5000})
    assert len(posts_of(tmp_path)) == 10_000


def test_tags_to_keep_leave_out_other_posts(tmp_path: Path) -> None:
    content = HEADER + "how,c#\nwhy,java\nwhere,php\nwhen,java\n"
    ingested = run(tmp_path, content, keep_tags=" java ,c#,")
    assert (ingested.posts, ingested.left_out, ingested.rows) == (3, 1, 3)
    assert posts_of(tmp_path) == [("how", "c#", 1), ("why", "java", 2), ("when", "java", 4)]
    none = tmp_path / "none"
    none.mkdir()
    with pytest.raises(BadInput, match="are left out, because none has exactly one tag of keep_tags=x: correct"):
        run(none, content, keep_tags="x")


def test_columns_are_those_of_the_settings(tmp_path: Path) -> None:
    run(tmp_path, "label,body\nc#,how\njava,why\n", text_column="body", tag_column="label")
    assert posts_of(tmp_path) == [("how", "c#", 1), ("why", "java", 2)]


def test_synthetic_posts_are_marked_as_such(tmp_path: Path) -> None:
    ingested = ingest.run(
        {},
        tmp_path / "out",
        Settings(source="sample://posts?rows=1500&seed=2"),
        context_of(Settings(source="sample://posts?rows=1500&seed=2")),
    )
    assert (ingested.synthetic, ingested.rows, ingested.posts, ingested.rejected) == (True, 1500, 1500, 0)
    assert len(ingested.posts_by_tag) == 20


def test_progress_counts_posts(tmp_path: Path) -> None:
    tracked, counts = [], []

    class Display:
        def __init__(self, *task: object) -> None:
            tracked.append(task)

        def __enter__(self) -> progress.Advance:
            return counts.append

        def __exit__(self, *_: object) -> None:
            pass

    settings = Settings(source="sample://posts?rows=1500")
    ingest.run({}, tmp_path / "out", settings, Context(Source.parse(settings.source), track=Display))
    assert (tracked, counts) == ([("ingest", "posts", 1500)], [1024, 476])


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, HEADER) == "posts.csv has no rows; set source to one that has posts"


def test_a_source_with_no_valid_row_is_refused(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, HEADER + ",c#\nhow,\nwhy,\n", max_rejected_fraction=1)
    assert sentence == (
        "all 3 rows of posts.csv were rejected (2 empty tag, 1 empty post), the first is row 1 (empty post); fix "
        "the source, or set text_column and tag_column to the right ones"
    )


def test_a_source_with_one_tag_is_refused(tmp_path: Path) -> None:
    assert "all 2 posts of posts.csv have the same tag, 'c#'" in refusal(tmp_path, HEADER + "how,c#\nwhy,c#\n")


def test_a_source_with_too_many_faulty_rows_is_refused(tmp_path: Path) -> None:
    content = HEADER + "how,c#\n,x\n" + "how,c#\nwhy,java\n" * 3000 + "x,\n" * 69
    sentence = refusal(tmp_path, content)
    assert sentence == (
        "70 of 6,071 rows of posts.csv were rejected (69 empty tag, 1 empty post), the first is row 2 (empty "
        "post): 0.0115 is more than max_rejected_fraction=0.01; fix the source, or raise max_rejected_fraction"
    )


@pytest.mark.parametrize(("good", "fraction", "refused"), [(99, 0.01, False), (98, 0.01, True), (98, 0.02, False)])
def test_the_limit_of_rejected_rows_is_inclusive(tmp_path: Path, good: int, fraction: float, refused: bool) -> None:
    content = HEADER + "".join(f"how {at},c#\n" for at in range(good - 1)) + "why,java\n,java\n"
    if refused:
        assert "1 of 99 rows" in refusal(tmp_path, content, max_rejected_fraction=fraction)
    else:
        assert run(tmp_path, content, max_rejected_fraction=fraction).rejected == 1


def test_a_limit_of_no_rejected_rows(tmp_path: Path) -> None:
    good = HEADER + "how,c#\nwhy,java\n"
    assert run(tmp_path, good, max_rejected_fraction=0).posts == 2


def test_a_refusal_does_not_show_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.reader, "read", lambda *_, **__: iter(()))
    with pytest.raises(BadInput) as caught:
        ingest.run(
            {},
            tmp_path / "out",
            Settings(source="https://user:secret@h/posts.csv?sig=secret"),
            context_of(Settings(source="https://user:secret@h/posts.csv?sig=secret")),
        )
    assert "https://h/posts.csv has no rows" in str(caught.value)


COPIES = HEADER + "how,c#\nwhy,java\nhow,java\nwhere,c#\nhow,c#\nwhen,java\nwho,c#\nwhat,java\nwhy,c#\nhow,java\n"
"""Ten posts, of which the first eight train; four are copies, and both test posts are."""


def test_copies_are_counted_within_the_posts_and_across_the_splits(tmp_path: Path) -> None:
    ingested = run(tmp_path, COPIES, fail_leaked=1)
    assert (ingested.posts, ingested.duplicates, ingested.leaked) == (10, 0.4, 1.0)
    assert ingested.warnings == [
        "40.00% of the posts are copies of an earlier one, more than warn_duplicates=0.01",
        "100.00% of the test posts are copies of a train post, so accuracy is too high, more than warn_leaked=0.01",
    ]


def test_too_many_copies_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, COPIES, fail_duplicates=0.39) == (
        "40.00% of the posts are copies of an earlier one, more than fail_duplicates=0.39; 100.00% of the test posts "
        "are copies of a train post, so accuracy is too high, more than fail_leaked=0.1: set drop_duplicates, fix "
        "posts.csv, or raise the limit"
    )


def test_the_limits_of_copies_are_inclusive(tmp_path: Path) -> None:
    assert run(tmp_path, COPIES, warn_duplicates=0.4, warn_leaked=1, fail_duplicates=0.4, fail_leaked=1).warnings == []


def test_a_split_by_content_leaks_nothing(tmp_path: Path) -> None:
    ingested = run(tmp_path, COPIES, split="hash")
    assert (ingested.duplicates, ingested.leaked) == (0.4, 0.0)


def test_drop_duplicates_keeps_the_first(tmp_path: Path) -> None:
    ingested = run(tmp_path, COPIES, drop_duplicates=True, fail_duplicates=0, max_rejected_fraction=0)
    assert (ingested.posts, ingested.rejected, ingested.rows) == (6, 4, 10)
    assert (ingested.duplicates, ingested.leaked, ingested.warnings) == (0.4, 0.0, [])
    assert [row[2] for row in posts_of(tmp_path)] == [1, 2, 4, 6, 7, 8]
    assert rows_of(tmp_path, "rejected") == [
        (row, "copy of an earlier post", text) for row, text in ((3, "how"), (5, "how"), (9, "why"), (10, "how"))
    ]


def test_drop_duplicates_knows_the_posts_of_earlier_blocks(tmp_path: Path) -> None:
    content = HEADER + "".join(f"how {at % 6000},c#\nwhy {at % 6000},java\n" for at in range(9000))
    assert run(tmp_path, content, drop_duplicates=True).posts == 12_000


SEVERAL = HEADER + "how,java|c#\nwhy,java\nwhere,c#\nwhen,<c#><php>\nwhat,php\n"


def test_posts_with_several_tags_are_rejected(tmp_path: Path) -> None:
    ingested = run(tmp_path, SEVERAL, max_rejected_fraction=0.4)
    assert (ingested.posts, ingested.rejected_by_reason) == (3, {"several tags": 2})


@pytest.mark.parametrize("content", [SEVERAL, HEADER + "how,java|c#\n"], ids=["some", "all"])
def test_if_they_are_too_many_the_sentence_says_what_to_set(tmp_path: Path, content: str) -> None:
    assert "fix the source, set keep_tags or multi_tag for posts with several tags" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("keep", "warnings"),
    [
        ("java,c#", []),
        ("java,c#,Rust", ["keep_tags names a tag that none of the posts kept has: 'Rust'; correct it or leave it out"]),
        (
            "java,c#,Rust,go|php",
            ["keep_tags names 2 tags that none of the posts kept has: 'Rust', 'go|php'; correct it or leave it out"],
        ),
    ],
)
def test_a_tag_to_keep_that_no_post_has_is_named_in_a_warning(tmp_path: Path, keep: str, warnings: list[str]) -> None:
    ingested = run(tmp_path, SEVERAL, keep_tags=keep)
    assert (ingested.posts_by_tag, ingested.left_out) == ({"c#": 2, "java": 1}, 2)
    assert ingested.warnings == warnings


def test_what_is_not_read_of_a_folder_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "posts.csv").write_text(SEVERAL)
    (folder / "more.tsv").touch()
    settings = Settings(source=str(folder), multi_tag=True, split="hash")
    [warning] = ingest.run({}, tmp_path / "out", settings, context_of(settings)).warnings
    assert warning.startswith(f"1 file of {folder} is not read, because")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"max_rejected_fraction": 1},
            "of 8 rows 3 were kept, 5 rejected (3 several tags, 1 empty post, 1 empty tag)",
        ),
        (
            {"max_rejected_fraction": 1, "multi_tag": True},
            "of 8 rows 6 were kept, 2 rejected (1 empty post, 1 empty tag)",
        ),
        (
            {"max_rejected_fraction": 1, "keep_tags": "java,c#"},
            "of 8 rows 4 were kept, 1 rejected (1 empty post), 3 left out by keep_tags",
        ),
        (
            {"max_rejected_fraction": 1, "keep_tags": "java,c#", "drop_duplicates": True},
            "of 8 rows 3 were kept, 1 rejected (1 empty post), 3 left out by keep_tags, 1 dropped as copies of an "
            "earlier post",
        ),
    ],
)
def test_a_sentence_says_what_became_of_every_row(tmp_path: Path, settings: dict[str, object], sentence: str) -> None:
    ingested = run(
        tmp_path, SEVERAL + ",java\nso,\nwhy,php|java\n", **{"fail_duplicates": 1, "fail_leaked": 1} | settings
    )
    assert accounting.sentence(asdict(ingested)) == sentence


def test_where_every_row_is_kept_nothing_is_said(tmp_path: Path) -> None:
    assert accounting.sentence(asdict(run(tmp_path, HEADER + "how,c#\nwhy,java\n"))) == ""
    assert accounting.sentence({"rows": 5, "rejected": 2}) == ""
