"""The log is read from its copy, but only as far as that agrees with the log itself."""

import re

import pytest

from pipeline.store.append_log import AppendLog, digest_of
from pipeline.store.documents import FORMAT
from pipeline.store.objects import Store

ENTRIES = [{"number": number, "what": f"change {number}"} for number in range(1, 6)]


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path))
    log = AppendLog(store, "log")
    for entry in ENTRIES:
        assert log.append(entry["number"], entry)
    return store


def chained(entries):
    """The entries with the digest of the one before each."""
    made = []
    for entry in entries:
        made.append(entry | {"previous": digest_of(made[-1]) if made else ""})
    return made


def fresh(store):
    return AppendLog(store, "log")


def test_a_long_log_is_read_in_three_calls(store, monkeypatch):
    read = []
    monkeypatch.setattr(store, "read", lambda path, real=store.read: (read.append(path), real(path))[1])
    assert fresh(store).entries() == chained(ENTRIES)
    assert read == ["log.json", "log/00000005.json"]


def test_a_number_is_taken_once(store):
    log = fresh(store)
    assert not log.append(5, {"number": 5, "what": "another's"})
    assert log.append(5, ENTRIES[4]), "the answer to the first try was lost"
    assert fresh(store).entries() == chained(ENTRIES)


def behind(store):
    store.create("log/00000006.json", {"number": 6, "previous": digest_of(chained(ENTRIES)[-1])})


def damaged(store):
    store.fs.pipe_file(store.path("log.json"), b"?")


def of_another_log(store):
    """As where the log was restored, and went on from there."""
    other = {f"{entry['number']:08d}.json": entry | {"what": "other"} for entry in chained(ENTRIES)}
    store.write("log.json", {"format": FORMAT, "entries": other})


SPOILED = {
    "absent": (lambda store: store.remove("log.json"), None),
    "behind": (behind, None),
    "damaged": (damaged, "log.json is damaged: remove it, the next entry"),
    "of another log": (of_another_log, "log.json differs from .*log: remove it"),
    "ahead": (lambda store: store.remove("log/00000005.json"), "00000005.json is gone, though .*log.json has a copy"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_wrong_copy_changes_nothing(store, spoil):
    do, fault = SPOILED[spoil]
    do(store)
    truth = [store.read(f"log/{name}") for name in store.names("log")]
    assert fresh(store).entries() == truth
    found = next(fresh(store).faults(), None)
    assert (found is None) == (fault is None)
    if fault:
        assert re.search(fault, found)
    if spoil != "ahead":
        number = len(truth) + 1
        log = fresh(store)
        log.entries()
        assert log.append(number, {"number": number})
        assert list(fresh(store).faults()) == []
        assert fresh(store).entries() == [*truth, {"number": number, "previous": digest_of(truth[-1])}]
        assert list(store.read("log.json")["entries"]) == store.names("log")
