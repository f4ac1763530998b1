import uuid

import pytest

from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.files import entries
from pipeline.store.objects import Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "first").write_bytes(b"1")
    (tmp_path / "folder" / "deep" / "second").write_bytes(b"\x00\xff")
    return tmp_path / "folder"


def test_a_document_comes_back_as_it_went(store):
    store.write("a/b.json", {"tag": "c++", "word": "naïve"})
    assert store.read("a/b.json") == {"tag": "c++", "word": "naïve"}
    store.write("a/b.json", {"tag": "c"})
    assert store.read("a/b.json") == {"tag": "c"}
    assert store.names("a") == ["b.json"]


def test_what_is_not_there_is_none(store):
    assert store.read("nothing.json") is None
    assert store.names("nothing") == []


def test_a_folder_comes_back_as_it_went(store, folder, tmp_path):
    store.upload(folder, "runs/a")
    store.download("runs/a", entries(folder), tmp_path / "back")
    assert entries(tmp_path / "back") == entries(folder)


def test_a_changed_file_is_found_and_named(store, folder, tmp_path):
    store.upload(folder, "runs/a")
    store.fs.pipe_file(store.path("runs/a/deep/second"), b"\x00\xfe")
    with pytest.raises(CorruptArtifact, match="deep/second is not the file"):
        store.download("runs/a", entries(folder), tmp_path / "back")


def test_a_lost_file_is_named(store, folder, tmp_path):
    store.upload(folder, "runs/a")
    store.fs.rm(store.path("runs/a/first"))
    with pytest.raises(CorruptArtifact, match="first is gone"):
        store.download("runs/a", entries(folder), tmp_path / "back")
    assert list(store.faults("runs/a", entries(folder))) == [None, f"{store.shown('runs/a')}/first is gone"]


def test_a_document_is_created_once(store):
    assert store.create("a/b.json", {"first": 1})
    assert not store.create("a/b.json", {"second": 2})
    assert store.read("a/b.json") == {"first": 1}
    assert store.names("a") == ["b.json"]


def test_every_flipped_byte_of_a_document_is_found(store):
    store.write("a.json", {"version": 7, "tag": "c++", "files": {"x": [1, 2.5, None]}})
    data = store.fs.cat_file(store.path("a.json"))
    for at in range(len(data)):
        for flip in (0x01, 0x20, 0xFF):
            store.fs.pipe_file(store.path("a.json"), data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            with pytest.raises(CorruptArtifact, match=r"a\.json is not the document that was written there"):
                store.read("a.json")


def test_a_removed_folder_is_gone(store, folder):
    store.upload(folder, "runs/a")
    assert store.sizes("runs/a") == {"deep/second": 2, "first": 1}
    store.remove("runs/a")
    store.remove("runs/a")
    assert store.sizes("runs/a") == {}


def test_files_are_uploaded_in_the_order_named(store, folder, monkeypatch):
    order = []
    put = store.fs.put_file
    monkeypatch.setattr(
        store.fs, "put_file", lambda here, there: (order.append(here.rsplit("/", 1)[-1]), put(here, there))
    )
    store.upload(folder, "x", ["deep/second", "first"])
    assert order == ["second", "first"]


def test_a_local_document_is_never_seen_half_written(tmp_path, monkeypatch):
    """The bytes are written beside the document, so a process that dies there leaves the old one."""
    store = Store(str(tmp_path))
    store.write("a.json", {"old": True})

    def die(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(Unavailable, match="No space left on device"):
        store.write("a.json", {"new": True})
    assert store.read("a.json") == {"old": True}
    assert store.names("") == ["a.json"]


@pytest.mark.parametrize("url", ["nowhere://x", "abfs://container"])
def test_an_unknown_protocol_is_bad_input(url):
    with pytest.raises(BadInput, match="set TAGGER_STORE to another"):
        Store(url)
