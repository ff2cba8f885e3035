"""What makes an imperfect sampler exact: weights, Metropolis, moves."""
