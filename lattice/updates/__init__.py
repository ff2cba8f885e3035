"""One Markov step of a batch of chains: phi -> (phi', info)."""
