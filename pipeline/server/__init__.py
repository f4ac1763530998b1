"""Answers over HTTP and gRPC with the live version, in the protocols of other servers, and follows the registry."""
