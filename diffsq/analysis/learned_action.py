"""The learned effective action of one real variable, S_DM(phi), against the action and its noised form.

    S_DM(phi) = E(phi, sigma), or -int_0^phi s(phi', sigma) dphi',      at the smallest noise level sigma
    S_sigma(phi) = -ln int dy e^{-S(y)} N(phi - y; sigma^2)             that of a perfect model
                 = S + 1/2 sigma^2 (S'' - S'^2) + O(sigma^4)

Actions are known up to a constant: every curve is shifted so that its difference to S, weighted with e^{-S},
vanishes. A curve is only as good as the data around it: where e^{-S} is small nothing was learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from scipy.interpolate import CubicSpline

from lattice.actions.one_variable import RealQuartic, TwoPeak
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.exact.quadrature import real_grid
from lattice.statistics.notation import aligned, format_value

Action = RealQuartic | TwoPeak
DROP = 6.0  # the grid ends where e^{-S} has fallen by e^-6 from its peak
NODES, REACH = 2001, 9.0  # of the noise integral, in sigma


@dataclass(frozen=True)
class LearnedAction:
    """S_DM on the grid phi (m,), mean of the models, with the error of that mean and the spread of one model.

    action: S; noised: S_sigma; density: e^{-S}, its sum one. All (m,), aligned with S. couplings: name ->
    {"value", "error", "true"}, from a fit of 1/2 mu2 phi^2 + (g/4!) phi^4 weighted with e^{-S}, for S_DM
    ("learned") and S_sigma ("noised"); empty for an action without couplings. off: rms of S_DM - S, and of
    S_DM - S_sigma, weighted with e^{-S}.
    """

    phi: Floats
    sigma: float
    learned: Floats
    error: Floats
    spread: Floats
    action: Floats
    noised: Floats
    density: Floats
    couplings: dict[str, dict[str, dict[str, float]]]
    off: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LearnedAction:
        """What `as_dict` gave."""
        fields: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**fields)


def support(action: Action, n: int = 401, drop: float = DROP) -> Floats:
    """A uniform grid (n,), n odd so that 0 is on it, where S is within about `drop` of its lowest value."""
    return real_grid(action, n + 1 - n % 2, drop)


def noised_action(action: Action, phi: Floats, sigma: float) -> Floats:
    """S_sigma on phi (m,), by the trapezoidal rule; exact to 1e-9 for sigma up to ten widths of e^{-S}.

    >>> from lattice.actions.one_variable import RealQuartic
    >>> s = noised_action(RealQuartic(1.0, 0.0), np.array([0.0, 2.0]), 1.0)       # variance 1 + 1
    >>> round(float(s[1] - s[0]), 9)
    1.0
    """
    if not 0 < sigma < math.inf:
        raise InputError(f"sigma of a noised action must be positive, got {sigma}")
    z = np.linspace(-REACH, REACH, NODES)
    log_weight = -0.5 * z**2 - math.log(math.sqrt(2 * math.pi) / (z[1] - z[0]))
    phi = real_array(phi, "phi")
    y = torch.from_numpy(rearrange(np.add.outer(phi, sigma * z), "m node -> (m node) 1"))
    inside = rearrange(-action.action(y).numpy(), "(m node) -> m node", m=len(phi)) + log_weight
    top = inside.max(axis=1, keepdims=True)
    return np.asarray(-(top[:, 0] + np.log(np.exp(inside - top).sum(axis=1))))


@torch.no_grad()
def learned_curve(model: Any, phi: Floats, sigma: float) -> Floats:
    """S_DM on an increasing grid phi (m,), zero at 0: the model's energy, or minus the integral of its score.

    model: points (n, 1), as `diffsq.models.points.PointModel`. Raises `InputError` for values that are not
    finite.
    """
    phi = real_array(phi, "phi")
    x = torch.from_numpy(phi)[:, None]
    level = torch.full((len(x),), float(sigma), dtype=torch.float64)
    energy = getattr(model, "kind", None) == "energy"
    values = (model.energy(x, level) if energy else -model.score(x, level)[:, 0]).numpy()
    if not np.isfinite(values).all():
        raise InputError("the model's score or energy is NaN or infinite where the action has its weight")
    spline = CubicSpline(phi, values) if energy else CubicSpline(phi, values).antiderivative()
    return np.asarray(spline(phi) - spline(0.0))


def compare_action(
    curves: Sequence[Floats], action: Action, phi: Floats, sigma: float, left_out: bool = False
) -> LearnedAction:
    """S_DM with its error band from curves (k, m), k >= 2, of models trained on disjoint data.

    left_out: the models were trained on all data but one block of k (a jackknife), not on disjoint parts.
    """
    if len(curves) < 2:
        raise InputError(f"an error band needs curves of two or more models, got {len(curves)}")
    given, phi = real_array(curves, "curves"), real_array(phi, "phi")
    if given.shape[1:] != phi.shape:
        raise InputError(f"curves of {given.shape[1:]} points on a grid of {phi.shape}")
    s = action.action(torch.from_numpy(phi)[:, None]).numpy()
    density = np.exp(s.min() - s)
    density /= density.sum()
    learned = np.stack([_aligned(curve, s, density) for curve in given])
    noised = _aligned(noised_action(action, phi, sigma), s, density)
    k = len(given)
    spread: Floats = learned.std(axis=0, ddof=1) * (1.0 if not left_out else (k - 1) / math.sqrt(k))
    mean, error = learned.mean(axis=0), spread / (1.0 if left_out else math.sqrt(k))
    couplings = {}
    if isinstance(action, RealQuartic):
        truth = {"mu2": action.mu2, "g": action.g}
        fits = np.array([_couplings(curve, phi, density) for curve in learned])
        size = fits.std(axis=0, ddof=1) * ((k - 1) / math.sqrt(k) if left_out else 1 / math.sqrt(k))
        couplings = {
            "learned": _named(fits.mean(axis=0), size, truth),
            "noised": _named(_couplings(noised, phi, density), np.zeros(2), truth),
        }
    off = {n: float(np.sqrt(density @ (mean - c) ** 2)) for n, c in (("action", s), ("noised", noised))}
    return LearnedAction(phi, float(sigma), mean, error, spread, s, noised, density, couplings, off)


def _aligned(curve: Floats, s: Floats, density: Floats) -> Floats:
    return np.asarray(curve - density @ (curve - s))


def _couplings(curve: Floats, phi: Floats, density: Floats) -> Floats:
    """mu2, g of the weighted least-squares fit of a constant, phi^2/2 and phi^4/4!."""
    root = np.sqrt(density)
    design = np.stack([np.ones_like(phi), phi**2 / 2, phi**4 / 24], axis=1) * root[:, None]
    return np.asarray(np.linalg.lstsq(design, curve * root, rcond=None)[0][1:], dtype=np.float64)


def _named(value: Floats, error: Floats, truth: dict[str, float]) -> dict[str, dict[str, float]]:
    return {
        name: {"value": float(v), "error": float(e), "true": true}
        for (name, true), v, e in zip(truth.items(), value, error)
    }


def text(found: LearnedAction) -> str:
    """Couplings read off S_DM and S_sigma, and the weighted distances."""
    lines = []
    if found.couplings:
        rows = [["", "true", "learned, S_DM", "exact at this sigma"]]
        for name, c in found.couplings["learned"].items():
            exact = found.couplings["noised"][name]["value"]
            rows.append([name, f"{c['true']:g}", format_value(c["value"], c["error"]), f"{exact:.5g}"])
        lines += aligned(rows)
    lines.append(
        f"rms difference, weighted with e^-S: S_DM - S {found.off['action']:.4f}, "
        f"S_DM - S_sigma {found.off['noised']:.4f} (sigma = {found.sigma:g})"
    )
    return "\n".join(lines)
