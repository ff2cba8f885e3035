"""Is an ensemble right? Verdicts with numbers."""
