"""Storage: files and JSON documents on any fsspec URL, and the runs and manifests stored there."""
