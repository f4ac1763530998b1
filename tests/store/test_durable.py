"""A file that is given its name only if no other has it, on disks with hard links and without."""

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pipeline.errors import Forbidden
from pipeline.store.objects import Store
from tests.conftest import files_of


@pytest.fixture(params=[None, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS], ids=lambda code: str(code))
def store(request, tmp_path, monkeypatch):
    """A store on a disk whose answer to link(2) is this error."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr("os.link", refuse)
    return Store(str(tmp_path))


def test_a_document_is_created_once_on_a_disk_without_hard_links(store):
    assert store.create("a.json", {"first": 1})
    assert not store.create("a.json", {"second": 2})
    assert store.read("a.json") == {"first": 1}
    assert os.listdir(store.url) == ["a.json"]


def test_of_many_that_create_a_document_at_once_one_does(store):
    start = Barrier(8)

    def create(number):
        start.wait()
        return store.create("a.json", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert store.read("a.json") == {"number": created.index(True)}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, None])
def test_a_disk_that_cannot_create_without_replacing_is_refused_in_a_true_sentence(tmp_path, monkeypatch, code):
    """Neither link(2) nor renameat2(2), as many filesystems of FUSE; or no renameat2 at all, as on macOS."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    def renameat2(*_):
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr("os.link", refuse)
    library = type("Library", (), {"renameat2": staticmethod(renameat2)} if code else {})
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: library())
    with pytest.raises(
        Forbidden, match=r"cannot create a file only if there is none.*trying again cannot help: set TAG"
    ):
        Store(str(tmp_path)).create("a.json", {})
    assert files_of(tmp_path) == {}


def test_a_folder_without_permission_is_still_named_as_such(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    library = type("Library", (), {"renameat2": lambda *_: ctypes.set_errno(errno.EPERM) or -1})
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: library())
    with pytest.raises(Forbidden, match="give this user permission to read and write it"):
        Store(str(tmp_path)).create("a.json", {})


def test_a_link_whose_answer_nfs_lost_was_made(tmp_path, monkeypatch):
    link = os.link

    def link_and_repeat(*names):
        link(*names)
        link(*names)

    monkeypatch.setattr("os.link", link_and_repeat)
    store = Store(str(tmp_path))
    assert store.create("a.json", {"first": 1})
    assert not store.create("a.json", {"second": 2})
    assert store.read("a.json") == {"first": 1}
