"""Fields with their history and weights, in memory and on disk."""
