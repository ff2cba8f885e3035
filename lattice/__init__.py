"""Lattice phi^4: actions, exact updates, ensembles and their errors.

Useful on its own to a lattice theorist; nothing here knows about networks or diffusion.  The project's
convention is the kappa-lambda one, S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lam) phi_x^2
+ lam phi_x^4] with periodic boundaries on any shape in one to four dimensions.

Import the rooms you need (``from lattice.action import ScalarPhi4``); this file imports nothing.
"""
