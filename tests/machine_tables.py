"""Numbers of the free chain of 10 sites, m = 2, mu^2 = 9, by closed form elsewhere."""

# KL of the best machine with 0, 1, ..., 10 hidden nodes
KL_BY_NODES = (
    0.782565, 0.563030, 0.395957, 0.228884, 0.149844, 0.070804, 0.044557, 0.018309, 0.010959, 0.003608, 0,
)  # fmt: skip
