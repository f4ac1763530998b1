"""Objects on any fsspec URL, and the runs and manifests kept there."""
