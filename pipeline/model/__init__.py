"""The only package that imports TensorFlow: the network, its input, its training, and the exported model."""

import gc
import logging
import os
import warnings

# Read by TensorFlow when it is imported. 3, because 2.15 reports each CUDA library that it finds twice as an error;
# what goes wrong still comes as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Every Estimator call warns that Estimators are deprecated, which is known and would bury the progress lines.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*(set_learning_phase|state_updates)", category=UserWarning)

# The garbage collector took a fifth of the import's time and found nothing. Frozen, the imported objects are skipped by
# later collections too.
gc.disable()
import tensorflow  # noqa: E402, F401

gc.freeze()
gc.enable()
