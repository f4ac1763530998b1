"""A tuning's inner store where keys are trusted: it is the same store by its own URL, and no other place."""

import shutil
import uuid
from pathlib import Path

import pytest

from pipeline.errors import CorruptArtifact
from pipeline.store import signatures
from pipeline.store.objects import Store
from tests.server.test_forger import new_key

INNER, DOCUMENT = "tunings/t/trials", "runs/trial0/run.json"


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    private, public = new_key(tmp_path, "ours")
    monkeypatch.setenv(signatures.SIGNING_KEY, str(private))
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(public))


@pytest.fixture(params=["local", "memory", "s3", "relative"])
def outer(request, tmp_path, monkeypatch):
    if request.param == "s3":
        request.getfixturevalue("s3")
    monkeypatch.chdir(tmp_path)
    name = uuid.uuid4().hex
    urls = {"local": str(tmp_path / "store"), "memory": f"memory://{name}", "s3": f"s3://stores/{name}"}
    return Store(urls.get(request.param, "store"))


def test_a_store_within_is_read_and_written_by_whichever_url_it_is_opened(outer):
    within, by_url = outer.within(INNER), Store(f"{outer.url}/{INNER}")
    within.write(DOCUMENT, {"by": "within"})
    assert by_url.read(DOCUMENT) == within.read(DOCUMENT) == outer.read(f"{INNER}/{DOCUMENT}") == {"by": "within"}
    by_url.write(DOCUMENT, {"by": "its URL"})
    assert Store(f"{outer.url}/{INNER}/").read(DOCUMENT) == within.read(DOCUMENT) == {"by": "its URL"}
    assert outer.sign(f"{INNER}/{DOCUMENT}")
    assert by_url.sign(DOCUMENT)
    assert by_url.display_path(DOCUMENT) == within.display_path(DOCUMENT)


def test_a_folder_of_a_store_that_begins_in_a_tunings_folder_is_found(tmp_path, monkeypatch):
    outer = Store(str(tmp_path))
    outer.within(INNER).write(DOCUMENT, {"a": 1})
    monkeypatch.chdir(tmp_path / "tunings")
    assert Store("t/trials").read(DOCUMENT) == {"a": 1}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (f"{INNER}/{DOCUMENT}", DOCUMENT),
        (f"{INNER}/{DOCUMENT}", f"tunings/u/trials/{DOCUMENT}"),
        (DOCUMENT, f"{INNER}/{DOCUMENT}"),
    ],
)
def test_a_signed_document_of_one_store_is_refused_in_the_other(tmp_path, source, target):
    """A trial's run, which was never compared with the live model, cannot be put among the runs that were."""
    store = Store(str(tmp_path))
    store.write(source, {"a": 1})
    Path(tmp_path, target).parent.mkdir(parents=True)
    shutil.copy(tmp_path / source, tmp_path / target)
    inner, _, path = target.rpartition("/trials/")
    stores = [store, Store(f"{tmp_path}/{inner}/trials")] if inner else [store]
    for each in stores:
        with pytest.raises(CorruptArtifact, match=r"was written to|its signature is not that of its"):
            each.read(path if each is not store else target)
