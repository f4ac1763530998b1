"""A published model in memory, which answers texts: by NumPy, and only versions of older releases by TensorFlow."""
