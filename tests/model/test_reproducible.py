"""The same work gives the same bytes, in any process and with any scratch folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import pytest

from pipeline.model import network, serving
from pipeline.stages.plan import MODEL_DIR
from pipeline.store import cache
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import files_of

STAGE = """
import sys
from pipeline.run import runner
from pipeline.store.objects import Store
from pipeline.store.runs import Run
runner.run_stage(sys.argv[1], Run(Store(sys.argv[2]), "finished"))
"""

LOAD = """
import json, sys, tensorflow as tf
print("imported", file=sys.stderr, flush=True)
post, *models = sys.argv[1:]
served = [tf.saved_model.load(model).signatures["serving_default"] for model in models]
answers = [signature(post=tf.constant([post]))["tag"].numpy()[0].decode() for signature in served]
for model in models:
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], model).signature_def["serving_default"]
        tag = session.run(signature.outputs["tag"].name, {signature.inputs["post"].name: [post]})
        answers.append(tag[0].decode())
print(json.dumps(answers))
"""
"""Loads every model by both loaders: TensorFlow 2's, which has all of them in memory at once, and TensorFlow 1's."""

WARNED = re.compile(r"^[-0-9]{10} [:.0-9]+: [WEF] .*", re.MULTILINE)
"""A warning or an error in TensorFlow's own log."""


@pytest.mark.parametrize("stage", ["train", "export"])
def test_a_stage_in_its_own_process_gives_the_same_bytes(finished_run, tmp_path, stage):
    shutil.copytree(finished_run.store.url, tmp_path / "store", ignore=shutil.ignore_patterns(cache.FOLDER))
    (tmp_path / "scratch").mkdir()
    place = {"TMPDIR": str(tmp_path / "scratch"), "PYTHONHASHSEED": "7", "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", STAGE, stage, str(tmp_path / "store")],
        env=os.environ | place,
        check=True,
        cwd=tmp_path,
    )
    again = Run(Store(str(tmp_path / "store")), "finished").manifest(stage)
    assert again.attempt != finished_run.manifest(stage).attempt
    assert again.files == finished_run.manifest(stage).files


@pytest.mark.parametrize("stage", ["train", "export"])
def test_no_file_contains_a_path_of_the_machine_that_made_it(finished_run, tmp_path, stage):
    finished_run.files.fetch(finished_run.manifest(stage), tmp_path)
    files = files_of(tmp_path)
    assert len(files) > 4
    for place in (Path.home(), Path.cwd(), gettempdir(), finished_run.store.url, "tagger-", "/inputs/"):
        assert [name for name, content in files.items() if str(place).encode() in content] == []


@pytest.fixture(scope="module")
def stages(finished_run, tmp_path_factory):
    """A folder with the outputs of two stages."""
    folder = tmp_path_factory.mktemp("stages")
    for stage in ("fit_vocabulary", "train"):
        finished_run.files.fetch(finished_run.manifest(stage), folder / stage)
    return folder


def test_two_moved_models_in_one_process_read_their_own_words_and_tags(finished_run, stages, tmp_path):
    """TensorFlow 2 has one namespace for the tables of all models in a process."""
    vocabulary, labels = (stages / "fit_vocabulary" / name for name in ("vocabulary.txt", "labels.txt"))
    tags, settings = labels.read_text(), finished_run.existing().settings
    renamed = tmp_path / "renamed" / "labels.txt"
    renamed.parent.mkdir()
    renamed.write_text(tags.replace("python", "snake"))
    with network.trained(stages / "train" / MODEL_DIR, settings, len(tags.split())) as estimator:
        models = [
            serving.export(
                estimator,
                vocabulary_file=vocabulary,
                labels_file=file,
                settings=settings,
                folder=tmp_path / "exported",
            ).rename(tmp_path / str(number))
            for number, file in enumerate((labels, renamed))
        ]
    shutil.rmtree(renamed.parent)
    labels.unlink()
    vocabulary.unlink()
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", LOAD, "a python list in a python dict", *map(str, models)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["python", "snake"] * 2
    assert WARNED.findall(done.stderr.partition("imported")[2]) == []
