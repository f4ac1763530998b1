"""Writes and reads a version's warm-up records: requests that a server computes before it answers its first client.

TensorFlow Serving looks for them in assets.extra/tf_serving_warmup_requests, a TFRecord file of PredictionLog messages:
https://www.tensorflow.org/tfx/serving/saved_model_warmup. Their posts are made of the vocabulary's words, so that a
published model holds no text that a person wrote.
"""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from pipeline.data.vocabulary import Vocabulary

FILE = "tf_serving_warmup_requests"
POSTS, WORDS = 20, 30
"""How many posts, and how many words of the vocabulary are in each at most."""


def texts(vocabulary: Vocabulary) -> list[str]:
    """Make POSTS texts of the vocabulary's words, frequent ones and rare ones in each, and a few of them twice."""
    step = max(1, len(vocabulary.words) // (POSTS * WORDS))
    words = vocabulary.words.to_pylist()[::step]
    chosen = [words[start::POSTS][:WORDS] for start in range(POSTS)]
    return [" ".join(text + text[: WORDS // 5]) for text in chosen]


def write(vocabulary: Vocabulary, signature: str, file: Path) -> None:
    """Write two requests for a signature that reads `post`: for a single post, and for all of `texts`."""
    made = texts(vocabulary)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for posts in (made[:1], made):
            entry = PredictionLog()
            request = entry.predict_log.request
            request.model_spec.signature_name = signature
            request.inputs["post"].CopyFrom(tf.make_tensor_proto(posts))
            writer.write(entry.SerializeToString(deterministic=True))


def read(model: Path) -> list[list[bytes]]:
    """Read the posts of each request in a SavedModel's folder; none if an older version of the pipeline exported it."""
    file = model / "assets.extra" / FILE
    if not file.exists():
        return []
    records = tf.compat.v1.io.tf_record_iterator(str(file))  # which works with and without eager execution
    entries = [PredictionLog.FromString(record) for record in records]
    return [tf.make_ndarray(entry.predict_log.request.inputs["post"]).tolist() for entry in entries]
