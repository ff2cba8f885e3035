"""Ensembles of lattice field configurations: actions, updates, storage, certificates, observables, errors.

`import lattice` loads neither torch nor numba; a public name loads what it needs when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice.lazy import lazy

if TYPE_CHECKING:
    from lattice.actions.conventions import from_kappa_lambda, to_kappa_lambda
    from lattice.actions.gaussian_rbm import GaussianMachine
    from lattice.actions.kinds import action_from_dict
    from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
    from lattice.actions.phi4 import ComplexPhi4, FreeScalar, ScalarPhi4
    from lattice.actions.protocol import Action
    from lattice.actions.spins import Ising, Potts
    from lattice.actions.u1 import U1, OneLink
    from lattice.ensembles.combine import combine
    from lattice.ensembles.ensemble import Ensemble, read_ensemble
    from lattice.ensembles.writer import write_ensemble
    from lattice.errors import InputError
    from lattice.interchange.exporting import export_ensemble
    from lattice.interchange.importing import import_file
    from lattice.observables.measure import format_table, measure, two_point
    from lattice.scans.crossings import binder_crossings
    from lattice.scans.scan import run_scan
    from lattice.scans.thermodynamic_integration import thermodynamic_integration
    from lattice.simulation.parameters import ComplexLangevin, ExactDraws, MonteCarlo, RandomNetworks
    from lattice.simulation.simulate import simulate
    from lattice.simulation.stochastic_quantization import stochastic_quantization
    from lattice.statistics.cumulants import cumulants_from_moments
    from lattice.statistics.gamma import Estimate, EstimatorError, gamma_method
    from lattice.statistics.jackknife import jackknife
    from lattice.statistics.notation import format_value, parse_value
    from lattice.statistics.weights import effective_sample_size

__all__ = [
    "Action", "ComplexGaussian", "ComplexLangevin", "ComplexPhi4", "ComplexQuartic", "Ensemble",
    "Estimate", "EstimatorError", "ExactDraws", "FreeScalar", "GaussianMachine", "InputError",
    "Ising", "MonteCarlo", "OneLink", "Potts", "RandomNetworks", "RealQuartic", "ScalarPhi4", "TwoPeak", "U1",
    "action_from_dict", "binder_crossings", "combine", "cumulants_from_moments", "effective_sample_size",
    "export_ensemble",
    "format_table", "format_value", "from_kappa_lambda", "gamma_method", "import_file", "jackknife",
    "measure", "parse_value", "read_ensemble", "run_scan", "simulate", "stochastic_quantization",
    "thermodynamic_integration", "to_kappa_lambda", "two_point", "write_ensemble",
]  # fmt: skip

__getattr__ = lazy(
    __name__,
    {
        "lattice.actions.conventions": "from_kappa_lambda to_kappa_lambda",
        "lattice.actions.gaussian_rbm": "GaussianMachine",
        "lattice.actions.kinds": "action_from_dict",
        "lattice.actions.one_variable": "ComplexGaussian ComplexQuartic RealQuartic TwoPeak",
        "lattice.actions.phi4": "ComplexPhi4 FreeScalar ScalarPhi4",
        "lattice.actions.protocol": "Action",
        "lattice.actions.spins": "Ising Potts",
        "lattice.actions.u1": "OneLink U1",
        "lattice.ensembles.combine": "combine",
        "lattice.ensembles.ensemble": "Ensemble read_ensemble",
        "lattice.ensembles.writer": "write_ensemble",
        "lattice.errors": "InputError",
        "lattice.interchange.exporting": "export_ensemble",
        "lattice.interchange.importing": "import_file",
        "lattice.observables.measure": "format_table measure two_point",
        "lattice.scans.crossings": "binder_crossings",
        "lattice.scans.scan": "run_scan",
        "lattice.scans.thermodynamic_integration": "thermodynamic_integration",
        "lattice.simulation.parameters": "ComplexLangevin ExactDraws MonteCarlo RandomNetworks",
        "lattice.simulation.simulate": "simulate",
        "lattice.simulation.stochastic_quantization": "stochastic_quantization",
        "lattice.statistics.cumulants": "cumulants_from_moments",
        "lattice.statistics.gamma": "Estimate EstimatorError gamma_method",
        "lattice.statistics.jackknife": "jackknife",
        "lattice.statistics.notation": "format_value parse_value",
        "lattice.statistics.weights": "effective_sample_size",
    },
    ("actions", "exact", "observables", "statistics", "updates"),
)
