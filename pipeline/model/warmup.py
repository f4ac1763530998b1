"""Writes a version's warm-up records: requests that a server computes before it answers its first client.

TensorFlow Serving looks for them in assets.extra/tf_serving_warmup_requests, a TFRecord file of PredictionLog messages:
https://www.tensorflow.org/tfx/serving/saved_model_warmup. Their posts are made of the vocabulary's words, so that a
published model holds no text that a person wrote.
"""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from pipeline.data.text_rule import example_texts
from pipeline.data.vocabulary import Vocabulary

FILE = "tf_serving_warmup_requests"


def write(vocabulary: Vocabulary, signature: str, file: Path) -> None:
    """Write two requests for a signature that reads `post`: for a single post, and for all of `example_texts`."""
    made = example_texts(vocabulary)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for posts in (made[:1], made):
            entry = PredictionLog()
            request = entry.predict_log.request
            request.model_spec.signature_name = signature
            request.inputs["post"].CopyFrom(tf.make_tensor_proto(posts))
            writer.write(entry.SerializeToString(deterministic=True))
