"""The compiled loops of the updates."""
