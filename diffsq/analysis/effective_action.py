r"""What the score has learned: the force, the couplings, and the effective action at every noise level.

At x = phi + sigma eps the score s of the noised density p_sigma is the conditional mean of the *clean* force
F = -dS/dphi, and of the denoising direction (target-score identity, De Bortoli et al. 2402.08667; Tweedie):

    s(x) = E[F(phi) | x] = E[(phi - x)/sigma^2 | x].

So s at finite sigma is not F(x), nor F(phi): their cosine falls as sqrt(1/(1 + sigma^2/G)) mode by mode for a
free field and a perfect score. Three comparisons do not blame the model for this:

    target     T = W F + (1 - W)(phi - x)/sigma^2,  W = G/(G + sigma^2) per mode: E[T | x] = s for any action,
               and T = s without any noise for a free field
    couplings  S = sum_j c_j O_j, g_j = dO_j/dphi. For any instrument h(x), E[h s] = -sum_j c_j E[h g_j(phi)]:
               with h_i = g_i(x) these equations give every c_j, at *every* sigma those of the action if the
               score is perfect (T - F, of mean zero given x, is taken off s as a control variate)
    running    p_sigma = e^{-S_eff}: least squares of s on g_j(x), the projection of S_eff on the same terms.
               A perfect score has E[g_i(x) s] = E[g_i(x) T]: the truth, from these fields without the model
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import shells
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_of

CHUNK = 64  # fields at a time: fixed, so that float32 rounding does not depend on the number asked for
MAX_CONDITION = 1e7  # of the normalised normal matrix
MIN_STRENGTH = 5.0  # smallest singular value over its error: weak instruments have no honest error
ROUNDING = 1e-9  # absolute accuracy of a coupling; statistical errors below it are zero


def _hop(phi: Tensor, *shifts: tuple[int, int]) -> Tensor:
    return torch.stack([phi.roll(shift, (-2, -1)) for shift in shifts]).sum(0)


def _near(phi: Tensor) -> Tensor:
    return _hop(phi, (1, 0), (-1, 0), (0, 1), (0, -1))


# dO_j/dphi of each term of S = sum_j c_j O_j; the sums over mu count each bond once
GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "kappa": lambda p: -2 * _near(p),  # -2 sum_mu phi phi_{+mu}
    "mass": lambda p: 2 * p,  # phi^2, coupling 1 - 2 lam
    "lam": lambda p: 4 * p**3,  # phi^4
    "phi6": lambda p: 6 * p**5,  # phi^6
    "kappa_diagonal": lambda p: -2 * _hop(p, (1, 1), (1, -1), (-1, 1), (-1, -1)),
    "kappa_two": lambda p: -2 * _hop(p, (2, 0), (-2, 0), (0, 2), (0, -2)),
    "phi2_phi2": lambda p: 2 * p * _near(p**2),  # sum_mu phi^2 phi_{+mu}^2
    "phi3_phi": lambda p: 3 * p**2 * _near(p) + _near(p**3),  # sum_mu (phi^3 phi_{+mu} + phi phi_{+mu}^3)
}
BARE = ("kappa", "mass", "lam")
EXTENDED = tuple(GRADIENTS)


def gradients(phi: Tensor, terms: tuple[str, ...] = BARE) -> Tensor:
    """dO_j/dphi of the named terms: (n, L0, L1) -> (n, n_term, L0, L1).

    >>> phi = torch.arange(16.0, dtype=torch.float64).reshape(1, 4, 4)
    >>> c = torch.tensor([0.27, 1 - 2 * 0.022, 0.022], dtype=torch.float64)
    >>> total = torch.einsum("j,njxy->nxy", c, gradients(phi))
    >>> torch.allclose(total, ScalarPhi4(kappa=0.27, lam=0.022).grad(phi))
    True
    """
    return torch.stack([GRADIENTS[name](phi) for name in terms], 1)


def true_couplings(action: ScalarPhi4, terms: tuple[str, ...] = BARE) -> list[float]:
    """Couplings of the action itself: kappa, 1 - 2 lam, lam, and zero for every other term."""
    known = {"kappa": action.kappa, "mass": 1 - 2 * action.lam, "lam": action.lam}
    return [float(known.get(name, 0.0)) for name in terms]


@dataclass
class Noised:
    """Noised fields x at one sigma with everything to compare: all (n, L0, L1) float64, see the module.

    `phi` clean fields, `score` of the model, `force` F(phi), `target` T. `chain` (n,) of each field, for
    errors (None: independent).
    """

    sigma: float
    phi: Tensor
    x: Tensor
    score: Tensor
    force: Tensor
    target: Tensor
    chain: Integers | None


@torch.no_grad()
def evaluate(
    model: LatticeScore, action: ScalarPhi4, phi: Tensor, sigma: float, eps: Tensor,
    chain: Integers | None = None, frame: Symmetry = IDENTITY,
) -> Noised:  # fmt: skip
    """The model's score at phi + sigma eps, with clean force and target; phi, eps (n, L0, L1) float64.

    phi must be equilibrium fields of `action` that the model was not trained on. Raises `InputError` where
    shapes do not fit, sigma is not positive, or fields or score are not finite.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma must be positive and finite, got {sigma}")
    if tuple(phi.shape[1:]) != model.shape or eps.shape != phi.shape:
        raise InputError(
            f"fields {tuple(phi.shape)} and noise {tuple(eps.shape)} must both be (n, *{model.shape})"
        )
    if chain is not None and len(chain) != len(phi):
        raise InputError(f"{len(phi)} fields but {len(chain)} chain numbers")
    p, x, force = model.momenta, phi + sigma * eps, -action.grad(phi)
    w = p.expand(model.base.wiener(phi.new_full((1,), sigma))[0])
    parts = torch.split(x, CHUNK)
    score = torch.cat([model.score(part, part.new_full((len(part),), sigma), frame) for part in parts])
    mixed = w * p.modes(force) + (1 - w) * p.modes((phi - x) / sigma**2)
    for name, values in (("fields", x), ("score", score)):
        bad = ~torch.isfinite(values).flatten(1).all(1)
        if bad.any():
            raise InputError(
                f"{name} at sigma = {sigma:.4g} not finite in {int(bad.sum())} of {len(x)} fields, "
                f"first in field {int(bad.int().argmax())}"
            )
    return Noised(sigma, phi, x, score, force, p.fields(mixed), chain)


def compare_score(model: LatticeScore, noised: Noised) -> dict[str, Any]:
    """The score s against the clean force F and the target T, per momentum shell and in total ("all", last).

    Returns sigma, the shells, and for each of them [value, error] by the jackknife over chains of

    cosine           <sF>/sqrt(<ss><FF>)
    wiener_cosine    the same of the free-field score -x/(G + sigma^2) on these fields: the perfect score of a
                     Gaussian theory, about (1 + sigma^2/G)^-1/2
    force_error      sqrt(<|s - F|^2>/<FF>)
    target_cosine, target_error  the same with T; what is left of the noise of T is in the error
    slope            <sT>/<ss>, 1 for a perfect score at any sigma
    control          cosine with the force of another field, 0
    """
    p = model.momenta
    index, labels = shells(p)
    s, f, t = (p.modes(q) for q in (noised.score, noised.force, noised.target))
    wiener = -p.modes(noised.x) / p.expand(model.base.g + noised.sigma**2)

    def product(a: Tensor, b: Tensor) -> Floats:
        per_class = p.class_sum(p.weight * (a.conj() * b).real)
        per_shell = per_class.new_zeros(len(a), len(labels)).index_add(1, index, per_class)
        return torch.cat([per_shell, per_shell.sum(1, keepdim=True)], 1).cpu().numpy()

    pairs = (s, s), (s, f), (f, f), (s, t), (t, t), (s, f.roll(len(f) // 2, 0)), (wiener, wiener), (wiener, f)
    columns = rearrange(np.stack([product(*pair) for pair in pairs], -1), "n shell pair -> shell n pair")

    def each(estimate: Callable[..., float]) -> list[list[float]]:
        def of_means(rows: Floats) -> float:
            return estimate(*rows.mean(0).tolist())

        return [list(jackknife_of(of_means, rows, chain=noised.chain)) for rows in columns]

    return {
        "sigma": noised.sigma,
        "shells": [str(label["label"]) for label in labels] + ["all"],
        "cosine": each(lambda ss, sf, ff, *_: sf / math.sqrt(ss * ff)),
        "wiener_cosine": each(lambda ss, sf, ff, st, tt, so, ww, wf: wf / math.sqrt(ww * ff)),
        "target_cosine": each(lambda ss, sf, ff, st, tt, *_: st / math.sqrt(ss * tt)),
        "force_error": each(lambda ss, sf, ff, *_: math.sqrt(max(ss - 2 * sf + ff, 0.0) / ff)),
        "target_error": each(lambda ss, sf, ff, st, tt, *_: math.sqrt(max(ss - 2 * st + tt, 0.0) / tt)),
        "slope": each(lambda ss, sf, ff, st, *_: st / ss),
        "control": each(lambda ss, sf, ff, st, tt, so, *_: so / math.sqrt(ss * ff)),
    }


def read_couplings(
    noised: Noised, action: ScalarPhi4, terms: tuple[str, ...] = BARE, control_variate: bool = True
) -> dict[str, dict[str, float]]:
    """The couplings of the *clean* action read off the score by instruments; the module has the identity.

    {term: {"value", "error", "true", "pull"}}, "true" the couplings of `action`. These enter the value only
    through the control variate, whose mean is zero; without it nothing of the action is used. Errors by the
    jackknife over chains. Raises `InputError` where the terms are not independent on this lattice.
    """
    free = noised.target - noised.force if control_variate else torch.zeros_like(noised.force)
    a, b = _normal(noised.x, noised.phi, noised.score - free, terms)
    values = _solve(a, b, noised.chain, terms)
    return {
        name: {"value": v, "error": e, "true": t, "pull": (v - t) / math.hypot(e, ROUNDING)}
        for name, (v, e), t in zip(terms, values, true_couplings(action, terms))
    }


def effective_action(noised: Noised, terms: tuple[str, ...] = EXTENDED) -> dict[str, dict[str, float]]:
    """Projection of the learned S_eff of the noised field on the terms, and its truth from the same fields.

    {term: {"value", "error", "true", "true_error", "pull"}}: coefficients of the least squares of -s on
    g_j(x), the same with T in place of s, and the pull of their paired difference. For sigma -> 0 these are
    the couplings of the action. Raises as `read_couplings`.
    """
    a, b = _normal(noised.x, noised.x, noised.score, terms)
    _, b_true = _normal(noised.x, noised.x, noised.target, terms)
    found, true, difference = (_solve(a, rhs, noised.chain, terms) for rhs in (b, b_true, b - b_true))
    return {
        name: {"value": v, "error": e, "true": t, "true_error": te, "pull": d / math.hypot(de, ROUNDING)}
        for name, (v, e), (t, te), (d, de) in zip(terms, found, true, difference)
    }


def _normal(
    instrument: Tensor, field: Tensor, score: Tensor, terms: tuple[str, ...]
) -> tuple[Floats, Floats]:
    """Per field, summed over sites: h_i g_j (n, n_term, n_term) and -h_i s (n, n_term)."""
    a, b = [], []
    for h_part, g_part, s_part in zip(*(torch.split(q, CHUNK) for q in (instrument, field, score))):
        h = gradients(h_part, terms)
        a.append(torch.einsum("nixy,njxy->nij", h, gradients(g_part, terms)))
        b.append(-torch.einsum("nixy,nxy->ni", h, s_part))
    return torch.cat(a).cpu().numpy(), torch.cat(b).cpu().numpy()


def _solve(a: Floats, b: Floats, chain: Integers | None, terms: tuple[str, ...]) -> list[tuple[float, float]]:
    """Solution of <a> c = <b> with jackknife errors."""
    size = len(terms)
    scale = np.sqrt(np.abs(np.einsum("nii->i", a)) / len(a))
    normal = rearrange(a / np.outer(scale, scale), "n i j -> n (i j)")
    data = np.concatenate([normal, b / scale], 1)

    def weakest(d: Floats) -> float:
        return float(np.linalg.svd(d.mean(0).reshape(size, size), compute_uv=False)[-1])

    def coefficient(d: Floats, i: int) -> float:
        m = d.mean(0)
        return float(np.linalg.solve(m[:-size].reshape(size, size), m[-size:])[i] / scale[i])

    strength, error = jackknife_of(weakest, normal, chain=chain)
    if strength < max(MIN_STRENGTH * error, size / MAX_CONDITION):
        raise InputError(
            f"the terms {', '.join(terms)} cannot be told apart in {len(a)} fields: "
            "use less noise, fewer terms, more fields or a larger lattice"
        )
    return [jackknife_of(partial(coefficient, i=i), data, chain=chain) for i in range(size)]
