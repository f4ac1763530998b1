"""Every file and document of a store is damaged, one after the other: `tagger verify` names it.

The few that may be gone without a word are listed with the reason.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from pipeline.cli.models import verify as command
from pipeline.errors import CorruptArtifact
from pipeline.store.objects import Store
from pipeline.upkeep.verify import verify
from tests.conftest import Once
from tests.rich_store import rich_store

MAY_BE_GONE = {
    r"(tunings/t/trials/)?cache/.*": "the next run that would use it does the work again",
    r"registry/[^/]+/(log|series)\.json": "a copy, which the next entry writes again",
    r"runs/[^/]+/report/page\.json": "`tagger report` makes the report again",
    r"runs/[^/]+/published\.json": "it says only which other documents must be there",
    r"runs/under_way/\w+/(shards/0|checkpoint|cluster/\w+)\.json": "the stage is begun again",
    r"(tunings/t/trials/)?begun/.*": "the next garbage collection adds the run to the index again",
    r"feedback/forgotten/.*": "what it forgets has been removed from the files that are there",
    r"tunings/t/result\.json": "`tagger tune` finds it again from the trials",
    r"tunings/t/journal/LAST\.json": "the search knows one operation less",
}
"""Documents that may be gone, and why nothing is lost."""

FOLDERS_MAY_BE_GONE = {
    r"runs/(same|unpublished|refused|under_way)": "garbage collection removes what nothing needs",
    r"(tunings/t/trials/)?begun": "the next garbage collection makes the index again",
    r"feedback(/forgotten)?": "whoever must forget all recorded posts may remove it",
    r"runs/under_way/\w+": "the stage is begun again",
    r"runs/under_way/\w+/(shards|checkpoint|cluster)": "the stage is begun again",
    r"tunings(/t(/trials(/runs)?)?)?": "garbage collection, or whoever needs the room, removes it",
    r"tunings/t/trials/runs/trial\d": "the same of one trial",
    r"tunings/t/journal": "nothing reads it once the result is there",
    r"models/[^/]+/20260105060708": "an earlier version need not be served",
}


def flipped(at: str, whole: bytes) -> bytes:
    place = {"first": 0, "middle": len(whole) // 2, "last": len(whole) - 1}[at]
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


CHANGES = {
    "flip the first byte": lambda whole: flipped("first", whole),
    "flip the middle byte": lambda whole: flipped("middle", whole),
    "flip the last byte": lambda whole: flipped("last", whole),
    "truncate to nothing": lambda _: b"",
    "truncate to half": lambda whole: whole[: len(whole) // 2],
}


@pytest.fixture(scope="module")
def store(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store to damage: each test leaves it as it was."""
    store = rich_store(once, tmp_path_factory.mktemp("damaged"))
    assert verify(store).faults == []
    return store


def names(store: Store) -> list[str]:
    return sorted(store.sizes(""))


def kind(name: str) -> str:
    """What the file is: the same for the same document of several runs, and for all files of such a folder."""
    name = re.sub(r"^(tunings/t/trials/)?runs/\w+/", r"\1runs/RUN/", name)
    name = re.sub(r"\d{8}T\d{6}-[0-9a-f]{8}/.*|(page|checkpoint|shards/0)/.*", "FILES", name)
    name = re.sub(r"models/.*", "models/FILES", name)
    return re.sub(r"[0-9a-f]{64}|\d{4,14}|trial\d", "N", name)


def document(name: str) -> str:
    """A document's name as MAY_BE_GONE has it; any file of a folder of files stands for all of them."""
    found = kind(name)
    return found if found.endswith("FILES") else name


def first_of(names: list[str], key) -> list[str]:
    """One of each kind."""
    return [next(same) for _, same in groupby(sorted(names, key=key), key)]


@contextmanager
def changed(store: Store, contents: dict[str, bytes | None]) -> Iterator[list[str]]:
    """The faults of the store while these files are gone, or have another content."""
    root = Path(store.url)
    before = {name: (root / name).read_bytes() for name in contents}
    for name, content in contents.items():
        (root / name).unlink() if content is None else (root / name).write_bytes(content)
    yield verify(store).faults
    for name, content in before.items():
        (root / name).write_bytes(content)


def unnamed(store: Store, contents: dict[str, bytes | None]) -> list[str]:
    """Those of the damaged files that no fault names."""
    with changed(store, contents) as faults:
        return [name for name in contents if not any(f"{store.url}/{name}" in fault for fault in faults)]


def may_be_gone(name: str, store: Store) -> bool:
    last = max(store.names("tunings/t/journal"))
    name = name.replace(f"journal/{last}", "journal/LAST.json")
    return any(re.fullmatch(pattern, name) for pattern in MAY_BE_GONE)


def assert_removals_are_named(store: Store, chosen: list[str]) -> None:
    silent = [name for name in chosen if unnamed(store, {name: None})]
    assert [name for name in silent if not may_be_gone(name, store)] == []
    assert [name for name in chosen if may_be_gone(name, store) and name not in silent] == []


def assert_changes_are_named(store: Store, chosen: list[str], *, in_turn: bool = False) -> None:
    """Of each file every change is named or, of one after the other, the next change."""
    root = Path(store.url)
    tried = 0
    for number, name in enumerate(chosen):
        whole = (root / name).read_bytes()
        every = list(CHANGES) if whole else []
        for what in every[number % len(CHANGES) :][:1] if in_turn else every:
            assert unnamed(store, {name: CHANGES[what](whole)}) == [], what
            tried += 1
    assert tried > (0.8 if in_turn else 4) * len(chosen)


def assert_swaps_are_named(store: Store, pairs: list[tuple[str, str]]) -> None:
    root = Path(store.url)
    for one, other in pairs:
        swapped = {one: (root / other).read_bytes(), other: (root / one).read_bytes()}
        assert unnamed(store, swapped) == []
    assert pairs


def swappable(store: Store) -> list[tuple[str, str]]:
    """Documents of one kind, each with the next."""
    documents = sorted((name for name in names(store) if not kind(name).endswith("FILES")), key=kind)
    return [pair for pair in pairwise(documents) if kind(pair[0]) == kind(pair[1])]


def test_every_document_that_is_gone_is_named(store):
    """And one file of each folder of files."""
    assert_removals_are_named(store, first_of(names(store), document))


def test_a_change_in_every_kind_of_file_is_named(store):
    assert_changes_are_named(store, first_of(names(store), kind), in_turn=True)


def test_a_document_in_the_place_of_another_of_its_kind_is_named(store):
    pairs = swappable(store)
    first_pairs = first_of([f"{one} {other}" for one, other in pairs], lambda pair: kind(pair.split()[0]))
    assert_swaps_are_named(store, [tuple(pair.split()) for pair in first_pairs])


@pytest.mark.thorough
def test_every_change_of_every_file_is_named(store):
    everything = names(store)
    assert_removals_are_named(store, everything)
    assert_changes_are_named(store, everything)
    assert_swaps_are_named(store, swappable(store))


def test_every_folder_that_is_gone_is_named(store, tmp_path):
    root = Path(store.url)
    folders = [name.rstrip("/") for name in store.tree("") if name.endswith("/")]
    outer = [name for name in folders if not kind(f"{name}/x").endswith("FILES") or kind(name) == name]
    silent = []
    for name in outer:
        shutil.move(root / name, tmp_path / "kept")
        if not any(f"{root}/{name}" in fault for fault in verify(store).faults):
            silent.append(name)
        shutil.move(tmp_path / "kept", root / name)
    inside = {name: [file for file in names(store) if file.startswith(f"{name}/")] for name in silent}
    lost = [name for name, files in inside.items() if not all(may_be_gone(file, store) for file in files)]
    allowed = [*FOLDERS_MAY_BE_GONE, r"runs/\w+/report(/page)?"]
    assert [name for name in lost if not any(re.fullmatch(each, name) for each in allowed)] == []


def test_all_faults_are_named_whatever_is_damaged_besides(store):
    root, chosen = Path(store.url), first_of(names(store), kind)
    flips = {name: flipped("middle", (root / name).read_bytes()) for name in chosen if (root / name).stat().st_size}
    assert len(flips) > 30
    # A document that cannot be read does not say which files it names, so files and documents take turns.
    documents = {name: content for name, content in flips.items() if name.endswith(".json")}
    assert unnamed(store, documents) == []
    assert unnamed(store, {name: content for name, content in flips.items() if name not in documents}) == []
    for pair in list(pairwise(sorted(documents)))[::4]:
        assert unnamed(store, {pair[0]: None if not may_be_gone(pair[0], store) else b"", pair[1]: b"?"}) == []


def test_a_store_whose_registry_is_gone_is_not_whole(store, tmp_path, capsys):
    root = Path(store.url)
    for beside in ([], ["models"]):
        for name in ("registry", *beside):
            shutil.move(root / name, tmp_path / name)
        with pytest.raises(CorruptArtifact, match="checks failed"):
            command(store=store.url)
        said = capsys.readouterr().out
        assert "registry/stackoverflow_tagger/log does not name version 20260105060709" in said
        for name in ("registry", *beside):
            shutil.move(tmp_path / name, root / name)
    assert verify(store).faults == []
