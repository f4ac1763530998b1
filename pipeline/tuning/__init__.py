"""Tuning: tries settings in trials, on any number of machines, and finds those that tag validation posts best."""
