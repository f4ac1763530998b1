"""Readers of posts: CSV, Parquet, HTTP, any fsspec URL, and synthetic posts."""
