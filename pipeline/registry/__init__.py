"""The model registry: published versions, the log of which was live, and the serving directory."""
