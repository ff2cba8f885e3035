"""Figures, one function each; every function takes plain arrays and returns a ``matplotlib.figure.Figure``.

No pyplot and no global state: figures carry their own Agg canvas and rc settings are restored on return, so
the functions may be called from a notebook, a thread or the report alike.  Field configurations are in the
kappa-lambda normalisation, lengths in lattice units, tau_int = 1/2 + sum_t rho(t) in the unit the caller
names.

>>> from diffsq import plots
>>> figure = plots.level_schedule([0.0, 0.5, 2.0, 8.0])
>>> figure.axes[0].get_xlabel()
'level $n$'
"""

from diffsq.plots.chains import autocorrelation, thermalisation
from diffsq.plots.distributions import log_weights, magnetization_distribution, two_point_function
from diffsq.plots.estimators import (
    Autocorrelation,
    Curve,
    autocorrelation_function,
    curve_ratio,
    histogram_density,
)
from diffsq.plots.fields import denoising_sequence
from diffsq.plots.sampling import level_schedule, level_variance, path_kl
from diffsq.plots.scan import binder_crossing, scan_figure, scan_figures
from diffsq.plots.style import to_svg
from diffsq.plots.summary import overview, pull_chart
from diffsq.plots.training import gain_per_level, gain_per_shell, training_history

__all__ = [
    "Autocorrelation", "Curve", "autocorrelation", "autocorrelation_function", "binder_crossing",
    "curve_ratio", "denoising_sequence", "gain_per_level", "gain_per_shell", "histogram_density",
    "level_schedule", "level_variance", "log_weights", "magnetization_distribution", "overview", "path_kl",
    "pull_chart", "scan_figure", "scan_figures", "thermalisation", "to_svg", "training_history",
    "two_point_function",
]  # fmt: skip
