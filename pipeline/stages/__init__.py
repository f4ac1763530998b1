"""The six stages, each a function from input folders to an output folder, and the table that describes them."""
