"""Checks of a finished run, `diffsq check NAME RUN`: each gives a dict, and words and a figure of it."""
