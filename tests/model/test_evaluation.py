"""The answers that an evaluation hands out, compared with those of Estimator.predict and Estimator.evaluate."""

import numpy as np
import pytest

from pipeline.data import posts
from pipeline.model import evaluation, input_fn, network


def test_the_answers_are_those_of_predict_and_the_metrics_those_of_evaluate(finished_run, tmp_path):
    for stage in ("vectorize", "train"):
        finished_run.files.fetch(finished_run.manifest(stage), tmp_path / stage)
    settings, handed = finished_run.existing().settings, list[np.ndarray]()
    feed = input_fn.testing(tmp_path / "vectorize", columns=settings.vocabulary_size, tags=20)
    with network.trained(tmp_path / "train" / "model", settings, 20) as estimator:
        measured = evaluation.evaluate(estimator, feed, handed.append)
        expected = estimator.evaluate(feed)
        predicted = estimator.predict(feed, yield_single_examples=False)
        answers = np.concatenate([each[network.OUTPUT] for each in predicted])
    assert len(answers) == posts.rows(tmp_path / "vectorize", "test") == 400
    np.testing.assert_array_equal(np.concatenate(handed), answers)
    assert measured == pytest.approx({name: float(value) for name, value in expected.items()})
