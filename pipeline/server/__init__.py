"""Answers over HTTP and gRPC with the live version, in the protocols of other servers, and follows the registry."""

from pipeline import model as model  # first of all, because it says how much TensorFlow prints when it is imported
