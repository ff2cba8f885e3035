"""Ensembles from and for other programs."""
