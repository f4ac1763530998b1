"""A version that is loaded to answer, or is refused before it does."""

import shutil

import pytest

from pipeline.data.weights import FILE
from pipeline.errors import CorruptArtifact
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.server.loaded import Loaded


@pytest.fixture
def folder(finished_run, tmp_path):
    with model_cache.opened(Registry(finished_run.store), None) as model:
        shutil.copytree(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_version_that_is_loaded_needs_its_files_no_more(folder):
    loaded = Loaded.open(folder, 7)
    shutil.rmtree(folder)
    assert (loaded.version, loaded.model.answer([b"a java list"]).tags) == (7, ["java"])
    assert set(loaded.signatures) == {"serving_default", "vectors", "cells", "classify"}
    loaded.close()


READ = ["saved_model.pb", "assets/vocabulary.txt"]
OLDER = ["saved_model.pb", "variables/variables.index", "assets/vocabulary.txt"]
"""What a version without a file of weights is read from."""


@pytest.mark.parametrize(("older", "name"), [*((False, name) for name in READ), *((True, name) for name in OLDER)])
@pytest.mark.parametrize("change", ["gone", "nonsense"])
def test_what_cannot_be_loaded_is_refused(folder, older, name, change):
    if older:
        (folder / FILE).unlink()
    if change == "gone":
        (folder / name).unlink()
    elif name != "assets/vocabulary.txt":
        (folder / name).write_bytes(b"nonsense")
    else:
        words = (folder / name).read_bytes().split(b"\n")
        (folder / name).write_bytes(b"\n".join(words[::-1]))
    with pytest.raises(CorruptArtifact, match="version 7 cannot be served") as refused:
        Loaded.open(folder, 7)
    assert "\n" not in str(refused.value)
