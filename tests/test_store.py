import uuid

import pytest

from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.files import entries
from pipeline.store import Store


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


def test_a_lost_file_is_unavailable(store, folder, tmp_path):
    store.upload(folder, "runs/a")
    store.fs.rm(store.path("runs/a/first"))
    with pytest.raises(Unavailable, match="cannot be read or written"):
        store.download("runs/a", entries(folder), tmp_path / "back")


def test_the_last_file_is_uploaded_last(store, folder, monkeypatch):
    order = []
    put = store.fs.put_file
    monkeypatch.setattr(
        store.fs, "put_file", lambda here, there: (order.append(here.rsplit("/", 1)[-1]), put(here, there))
    )
    store.upload(folder, "x", last="first")
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


def test_a_store_in_a_file_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="see that the store is there, writable and not full"):
        Store(str(tmp_path / "file")).write("a.json", {})


@pytest.mark.parametrize("url", ["nowhere://x", "abfs://container"])
def test_an_unknown_protocol_is_bad_input(url):
    with pytest.raises(BadInput, match="set TAGGER_STORE to another"):
        Store(url)
