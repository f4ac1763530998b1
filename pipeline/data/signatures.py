"""The names of a published SavedModel's signatures, and of their inputs and outputs."""

SERVING = "serving_default"
VECTORS = "vectors"
CELLS = "cells"
CLASSIFY = "classify"

EXAMPLES = "examples"
"""The input of the signature `classify`: serialized tf.Examples, string [n]."""

FEATURE = "posts_input"
"""The input of the signature `vectors`: dense rows, float32 [n, vocabulary_size]."""

OUTPUT = "labels"
"""The network's output: probabilities, float32 [n, tags], which add up to 1 unless posts have several tags."""
