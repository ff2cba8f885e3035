"""From an ensemble to a model."""
