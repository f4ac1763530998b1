"""The posts between the stages, as Parquet, and the meaning of a word."""
