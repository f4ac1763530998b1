"""Folders and patterns are listed without silent loss: links, circles, unreadable folders, files that are not read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import BadInput
from pipeline.sources import reader
from pipeline.sources.listing import listed
from pipeline.sources.source import Source
from pipeline.store.objects import Store

NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Nobody's rights, if this process may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may read, unlike tmp_path, with two files."""
    with TemporaryDirectory(prefix="tagger-listing-") as made:
        above = Path(made)
        above.chmod(0o755)
        save(above / "in/a.csv", "a")
        save(above / "in/sub/b.csv", "b")
        yield above / "in"


def save(path: Path, post: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"post,tags\n{post},java\n")
    return path


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def read(place: object, *allowed: object) -> tuple[list[str], list[str]]:
    """The posts and the warnings."""
    source = Source.parse(str(place), tuple(map(str, allowed)) or None)
    blocks = list(reader.read(source, text_column="post", tag_column="tags"))
    posts = [post for block in blocks for post in block.posts.column("post").to_pylist()]
    return posts, [warning for block in blocks for warning in block.warnings]


def refusal(place: object, *allowed: object) -> str:
    with pytest.raises(BadInput) as caught:
        read(place, *allowed)
    return str(caught.value)


def names(place: object) -> list[str]:
    return listed(str(place)).files


WAYS = ["", "/**/*.csv", "/**/[a-z].csv", "/**"]
"""As a folder, and as patterns that match the same files."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", ["", "file://"])
class TestLinks:
    def test_to_folders_and_files_are_followed(self, folder: Path, way: str, scheme: str) -> None:
        save(folder.parent / "elsewhere/c.csv", "c")
        save(folder.parent / "elsewhere/deep/d.csv", "d")
        save(folder.parent / "e.csv", "e")
        link(folder / "linked", folder.parent / "elsewhere")
        link(folder / "sub/e.csv", folder.parent / "e.csv")
        assert sorted(read(f"{scheme}{folder}{way}")[0]) == ["a", "b", "c", "d", "e"]

    def test_in_circles_end(self, folder: Path, way: str, scheme: str) -> None:
        for at in range(12):
            link(folder / f"sub/up{at}", folder)
            link(folder / f"self{at}", folder / "sub")
        assert read(f"{scheme}{folder}{way}") == (["a", "b"], [])

    def test_a_file_with_several_names_is_read_once(self, folder: Path, way: str, scheme: str) -> None:
        link(folder / "0", folder / "sub")
        link(folder / "0.csv", folder / "a.csv")
        assert names(f"{folder}{way}") == [f"{folder}/a.csv", f"{folder}/sub/b.csv"]
        assert read(f"{scheme}{folder}{way}") == (["a", "b"], [])

    @pytest.mark.parametrize("name", ["x.csv", "sub/x.csv", "sub/folder"])
    def test_that_lead_nowhere_are_refused(self, folder: Path, way: str, scheme: str, name: str) -> None:
        link(folder / name, folder.parent / "nowhere")
        assert refusal(f"{scheme}{folder}{way}") == (
            f"{folder}/{name} is a link that leads nowhere: fix it or remove it"
        )
        (folder / name).unlink()
        link(folder / name, folder / name)
        assert "is a link that leads nowhere" in refusal(f"{scheme}{folder}{way}")

    def test_that_are_hidden_are_not_looked_at(self, folder: Path, way: str, scheme: str) -> None:
        link(folder / ".#a.csv", folder / "nowhere")
        link(folder / ".folder", folder / "nowhere")
        assert read(f"{scheme}{folder}{way}")[0] == ["a", "b"]

    def test_that_lead_out_of_what_is_allowed_are_refused(self, folder: Path, way: str, scheme: str) -> None:
        save(folder.parent / "elsewhere/c.csv", "c")
        assert read(f"{scheme}{folder}{way}", folder)[0] == ["a", "b"]
        link(folder / "inner", folder / "sub")
        assert read(f"{scheme}{folder}{way}", folder)[0] == ["a", "b"]
        link(folder / "linked", folder.parent / "elsewhere")
        assert "is not one that Airflow's runs may read" in refusal(f"{scheme}{folder}{way}", folder)
        (folder.parent / "elsewhere/c.csv").unlink()  # not even a folder without a file is looked into
        assert "linked is not one that Airflow's runs may read" in refusal(f"{scheme}{folder}{way}", folder)


@pytest.mark.parametrize("way", WAYS)
class TestUnreadable:
    def test_folders_are_refused(self, folder: Path, way: str) -> None:
        (folder / "sub").chmod(0)
        try:
            with without_privileges():
                sentence = refusal(f"{folder}{way}")
        finally:
            (folder / "sub").chmod(0o755)
        assert sentence == f"{folder}/sub is a folder that cannot be read: give this user permission to read it"

    def test_folders_whose_names_only_can_be_read_are_refused(self, folder: Path, way: str) -> None:
        (folder / "sub").chmod(0o744)
        with without_privileges():
            assert refusal(f"{folder}{way}").startswith(f"{folder}/sub/b.csv cannot be read: give this user")

    def test_files_are_refused(self, folder: Path, way: str) -> None:
        (folder / "sub/b.csv").chmod(0)
        with without_privileges():
            assert (
                refusal(f"{folder}{way}") == f"{folder}/sub/b.csv cannot be read: give this user permission to read it"
            )

    def test_a_pipe_is_refused(self, folder: Path, way: str) -> None:
        os.mkfifo(folder / "sub/p.csv")
        assert refusal(f"{folder}{way}") == f"{folder}/sub/p.csv is neither a file nor a folder: remove it"


class TestNotRead:
    def test_of_a_folder_files_with_other_suffixes_are_counted(self, folder: Path) -> None:
        assert read(folder) == (["a", "b"], [])
        (folder / "_SUCCESS").touch()
        (folder / ".b.csv.crc").touch()
        assert read(folder) == (["a", "b"], [])
        (folder / "sub/more.tsv").touch()
        why = "because of a folder only those that end in .csv, .jsonl, .ndjson, .parquet are"
        assert read(folder) == (["a", "b"], [f"1 file of {folder} is not read, {why}; one is 'more.tsv'"])
        (folder / "Posts\n.xml").touch()
        assert read(folder)[1] == [f"2 files of {folder} are not read, {why}; one is 'Posts\\n.xml'"]

    def test_of_a_pattern_folders_are_counted(self, folder: Path) -> None:
        posts, [warning] = read(folder / "*")
        assert posts == ["a"]
        assert warning == f"1 folder that {folder}/* matches is not read, because a pattern names files; one is 'sub'"
        assert read(folder / "*/*.csv") == (["b"], [])

    def test_it_is_said_once_in_the_log(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        (folder / "README.md").touch()
        read(folder)
        assert [record.getMessage() for record in caplog.records] == [f"warning: {read(folder)[1][0]}"]

    def test_of_an_object_store_too(self, s3: dict[str, str], folder: Path) -> None:
        fs = Store("s3://stores").fs
        fs.put(f"{folder}/", "stores/listed/", recursive=True)
        fs.pipe("stores/listed/sub/", b"")  # marks the folder, as S3's console makes it
        for place in ("s3://stores/listed/", "s3://stores/listed/**/*.csv", "s3://stores/listed/**"):
            assert read(place) == (["a", "b"], [])
        for name in ("sub/more.tsv", "README", "_SUCCESS", ".hidden/c.csv", "_tmp/c.csv"):
            fs.pipe(f"stores/listed/{name}", b"x")
        posts, [warning] = read("s3://stores/listed/")
        assert posts == ["a", "b"]
        assert warning.startswith("2 files of s3://stores/listed/ are not read, because")
        assert warning.endswith("; one is 'README'")
        fs.rm("stores/listed/README")
        posts, [warning] = read("s3://stores/listed/[a-z]*")
        assert posts == ["a"]
        assert warning.startswith("1 folder that s3://stores/listed/[a-z]* matches is not read")


class Closed(MemoryFileSystem):
    """A filesystem with a folder that may not be listed."""

    protocol = "closed"

    def ls(self, path: str, detail: bool = True, **options: object) -> list[object]:
        if path.rstrip("/").endswith("sub"):
            raise PermissionError(13, "Forbidden", path)
        return super().ls(path, detail, **options)


@pytest.mark.parametrize("way", ["", "*/*.csv", "**/*.csv"])
def test_a_folder_that_another_filesystem_refuses_to_list_is_an_error(way: str) -> None:
    fsspec.register_implementation("closed", Closed, clobber=True)
    for name in ("a.csv", "sub/b.csv"):
        with fsspec.open(f"closed://listed/{name}", "w") as file:
            file.write("post,tags\nx,java\n")
    assert f"closed://listed/{way} cannot be read: give this user permission" in refusal(f"closed://listed/{way}")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv"]),
        ("*", ["a.csv"]),
        ("**", ["a.csv", "one/b.csv", "one/two/c.csv", "other/b.csv"]),
        ("**/**/c.csv", ["one/two/c.csv"]),
        ("**/two/*", ["one/two/c.csv"]),
        ("o*/b.csv", ["one/b.csv", "other/b.csv"]),
        ("o[tn]*/[!x].csv", ["one/b.csv", "other/b.csv"]),
        (".*/*.csv", [".hidden/d.csv"]),
        ("one/*/?.csv", ["one/two/c.csv"]),
    ],
)
def test_what_patterns_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str]
) -> None:
    for name in ("a.csv", "one/b.csv", "one/two/c.csv", "other/b.csv", ".hidden/d.csv"):
        save(tmp_path / name, name)
    assert names(tmp_path / pattern) == [f"{tmp_path}/{name}" for name in expected]
    monkeypatch.chdir(tmp_path)
    assert names(pattern) == expected


class TestFileUrls:
    def test_of_a_folder_is_read_as_the_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for url in (f"file://{folder}", f"file://{folder}/", f"local://{folder}"):
            assert read(url) == read(url, folder) == (["a", "b"], [])
            assert Source.parse(url).fingerprint() == Source.parse(str(folder)).fingerprint() is not None
        monkeypatch.chdir(folder.parent)
        assert read("file://in") == (["a", "b"], [])
        assert "is not one that Airflow's runs may read" in refusal("file://in", folder)

    def test_of_a_file_has_a_fingerprint(self, folder: Path) -> None:
        source = Source.parse(f"file://{folder}/a.csv")
        assert source.fingerprint() == Source.parse(f"{folder}/a.csv").fingerprint() is not None
        assert source.state() is not None
