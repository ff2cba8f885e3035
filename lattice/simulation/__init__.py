"""From an action to a certified ensemble in a folder, resumable."""
