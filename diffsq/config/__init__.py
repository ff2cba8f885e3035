"""A run's YAML as typed sections; imports no torch."""
