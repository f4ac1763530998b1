"""The weights of a trained network: as arrays, as the file beside a published SavedModel, and what they compute.

The file is in the format safetensors (https://github.com/huggingface/safetensors): a table of names, types and shapes,
then the numbers. Reading it runs nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from scipy.sparse import csr_matrix

FILE = "weights.safetensors"

NAMES = ("posts.kernel", "posts.bias", "labels.kernel", "labels.bias")
"""The arrays in the file, after the layers of pipeline.model.network.keras_model."""

FLOAT32 = "F32"


@dataclass(frozen=True, eq=False)
class Weights:
    """The kernels and biases of the layers `posts` and `labels`, float32."""

    posts_kernel: np.ndarray  # [vocabulary_size, hidden_units]
    posts_bias: np.ndarray  # [hidden_units]
    labels_kernel: np.ndarray  # [hidden_units, tags]
    labels_bias: np.ndarray  # [tags]

    def logits(self, vectors: csr_matrix) -> np.ndarray:
        """What the network has before softmax or sigmoid, without dropout: float32 [posts, tags]."""
        return self.from_sums(vectors @ self.posts_kernel)

    def from_sums(self, sums: np.ndarray) -> np.ndarray:
        """The same, from the sums of the rows of `posts_kernel` that posts have: float32 [posts, hidden_units]."""
        hidden = np.maximum(sums + self.posts_bias, 0)
        logits: np.ndarray = hidden @ self.labels_kernel + self.labels_bias
        return logits

    def write(self, file: Path) -> None:
        """Write the weights as one file; equal weights give equal bytes."""
        from safetensors.numpy import save_file

        arrays = (self.posts_kernel, self.posts_bias, self.labels_kernel, self.labels_bias)
        save_file({name: np.ascontiguousarray(each) for name, each in zip(NAMES, arrays, strict=True)}, file)

    @classmethod
    def read(cls, file: Path, *, columns: int, tags: int) -> "Weights":
        """Read what `write` wrote, of a model with so many columns and tags; ValueError where it is something else.

        The shapes that the file claims are checked before memory is taken for its numbers.
        """
        try:
            with safe_open(file, framework="numpy") as tensors:
                _refuse_other_arrays(tensors, columns, tags)
                return cls(*(tensors.get_tensor(name) for name in NAMES))
        except SafetensorError as error:
            raise ValueError(f"{file.name} cannot be read ({error})") from None


def _refuse_other_arrays(tensors: Any, columns: int, tags: int) -> None:
    """Raise ValueError unless the open file has the arrays of such a network, by its table."""
    if set(tensors.keys()) != set(NAMES):
        raise ValueError(f"{FILE} does not have the arrays {', '.join(NAMES)}")
    claimed = [tensors.get_slice(name) for name in NAMES]
    types = {each.get_dtype() for each in claimed}
    shapes = [each.get_shape() for each in claimed]
    units = shapes[1][0] if len(shapes[1]) == 1 else 0
    if types != {FLOAT32} or shapes != [[columns, units], [units], [units, tags], [tags]]:
        claim = f"arrays of the shapes {shapes} and the types {sorted(types)}"
        raise ValueError(f"{FILE} has {claim}, which are not the weights of {columns:,} words and {tags:,} tags")
