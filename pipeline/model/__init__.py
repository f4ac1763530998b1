"""The one room where TensorFlow is imported: the network, its training data, and what is served."""

import gc
import logging
import os
import warnings

# Read by TensorFlow when it is imported. 3, because 2.15 reports each CUDA library that it finds twice as an error;
# what goes wrong still comes as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Every Estimator call warns that Estimators are deprecated, which is known here and would bury the progress lines.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*(set_learning_phase|state_updates)", category=UserWarning)

# A fifth of the import's time went into looking for garbage, and there is none; frozen, what it made is not looked
# through again by later collections either.
gc.disable()
import tensorflow  # noqa: E402, F401

gc.freeze()
gc.enable()
