"""Truth without Monte Carlo: closed forms and quadrature."""
