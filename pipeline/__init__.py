"""Stack Overflow posts in, a published tag classifier out: the six stages, their runner, store and registry."""
