"""Actions: S and its gradient, one system a file."""
