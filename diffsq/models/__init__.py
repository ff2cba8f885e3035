"""What is learned: D(x, sigma), score, energy."""
