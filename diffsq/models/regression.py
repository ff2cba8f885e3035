"""The closed-form part of the denoiser: Wiener filter plus a regression on bounded functions of it.

For x = phi + sigma eps the best linear denoiser is W x per momentum mode, W = G/(G + sigma^2), with posterior
variance C = W sigma^2. What it misses is fitted by one least squares over momenta and noise levels:

    D(k) = W x + sqrt(C) c(k),    c(k) = sum_j a_j(k, sigma) f_j(k),     f_j of diffsq.models.features.

The regression target needs no clean denoising signal alone. By Tweedie's formula and the target-score
identity (De Bortoli et al. 2402.08667) both (phi - x)/sigma^2 and -dS/dphi average, given x, to the score;
their difference z = (phi - x)/sigma^2 + dS/dphi averages to zero and is used as a control variate: for a
free field it removes the noise of the target altogether, at kappa_c it removes 50-99.9 % of its variance,
mode by mode. A law without an action has no such variate: z = 0, beta = 0.

A base with `sector` describes the fluctuations of one sign of M alone, phi sign(M) - <|M|>: where P(M) has
two sharp peaks no odd denoiser is smooth between them.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from diffsq.models.blocks import Fields, Mapped, block_size, drawn, slices, zero_modes
from diffsq.models.features import ODD, SECTOR, Features, Filters, twice
from diffsq.models.momentum import Momenta, chebyshev
from diffsq.models.normal_kernel import normal_sums
from diffsq.models.protocol import Noise
from diffsq.models.site import N_CELLS, SitePosterior, SiteTable
from diffsq.models.site_network import SiteNetwork, SiteTerm
from diffsq.models.spline import cardinal
from diffsq.models.zero_mode import ZeroModeDenoiser
from lattice.actions.protocol import Action

VERSION = 4  # of what fits make of given data, tables of sites and zero mode too: raise it with any change
RIDGE = 1e-5
CHUNK = 1024, 2**18  # fields, and sites, of a block at most
N_SMOOTH_K = 6  # polynomials in ln(1 + k^2): free coefficients of every k would fit the noise of the data
N_SMOOTH_SIGMA = 12  # polynomials in ln sigma, likewise
ROUNDING = 1e-10  # a feature with less than this fraction of the strongest one's power is absent


class RegressionBase(nn.Module):
    """Denoiser W x + sqrt(C) sum_j a_j f_j, its coefficients on a grid of noise levels.

    `coefficients` (n_sigma, n_class, n_feature); `explained` (n_sigma, n_class): the part of the Wiener
    posterior variance C, as a fraction, that the regression explains; `beta` (n_sigma, n_class): weight of
    the control variate sqrt(C) z in a variance-reduced training target. Tables are quintic splines in
    ln sigma, and zero until `fit`: the bare Wiener filter. `centre`: <|M|> of a sector, else 0. `network`:
    one whose trace is closed-form too, added to the regression; of `network` channels, none for 0.
    """

    def __init__(self, momenta: Momenta, n_sigma: int, sector: bool = False, network: int = 0) -> None:
        super().__init__()
        self.momenta, self.sector = momenta, sector
        self.network = SiteNetwork(network) if network else None
        self.terms = SECTOR if sector else ODD
        self.n_feature = len(self.terms) + 2  # of the site posterior, and of the zero mode
        self.zero_mode = ZeroModeDenoiser(symmetric=not sector)
        self.site = SitePosterior(n_sigma)
        n_class = momenta.n_class
        self.g = nn.Buffer(torch.zeros(n_class, dtype=torch.float64))
        self.log_sigma = nn.Buffer(torch.zeros(n_sigma, dtype=torch.float64))
        self.coefficients = nn.Buffer(torch.zeros(n_sigma, n_class, self.n_feature, dtype=torch.float64))
        self.explained = nn.Buffer(torch.zeros(n_sigma, n_class, dtype=torch.float64))
        self.beta = nn.Buffer(torch.zeros(n_sigma, n_class, dtype=torch.float64))
        self.centre = nn.Buffer(torch.zeros((), dtype=torch.float64))

    def wiener(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Filter W and posterior variance C per class: sigma (n,) -> (n, n_class) each."""
        w = self.g / (self.g + sigma[:, None] ** 2)
        return w, w * sigma[:, None] ** 2

    def at(self, table: Tensor, sigma: Tensor) -> Tensor:
        """Table (n_sigma, ...) as a quintic spline in ln sigma, constant beyond both ends: (n, ...)."""
        low, high = self.log_sigma[0], self.log_sigma[-1]
        place = ((sigma.log() - low) / (high - low)).clamp(0, 1) * (len(self.log_sigma) - 1)
        return (cardinal(place, len(self.log_sigma)) @ table.reshape(len(table), -1)).reshape(
            -1, *table.shape[1:]
        )

    def scale(self, sigma: Tensor) -> Tensor:
        """Standard deviation of W x at a site: (n,) -> (n,)."""
        w, _ = self.wiener(sigma)
        return ((self.momenta.multiplicity * w * self.g).sum(-1) / self.momenta.volume).sqrt()

    def filters(self, sigma: Tensor, dtype: torch.dtype = torch.float32) -> Filters:
        """What makes features of noisy fields at sigma (n,) or, for all samples alike, (1,)."""
        p = self.momenta
        w, c = self.wiener(sigma)
        mean_c = (p.multiplicity * c).sum(1, keepdim=True) / p.volume
        tree = p.expand(c / mean_c)
        # C(0) may be so much larger that the trees would be of the zero mode alone, and their tails too
        tree[..., 0, 0] = tree.flatten(-2)[..., 1:].amax(-1) if p.volume > 1 else 1.0
        normal = (1 / self.scale(sigma)).float().double()[:, None, None]  # see _site
        return Filters(
            p, self.terms, twice(p.expand(w).to(dtype)), twice(tree.to(dtype)), normal.to(dtype),
            self._site(sigma, dtype),
            float(self.centre) if self.sector else 0.0,
        )  # fmt: skip

    def _site(self, sigma: Tensor, dtype: torch.dtype) -> SiteTable | None:
        if not self.site.known:
            return None
        scale = self.site.scale(sigma)
        # in numbers that float32 holds: what multiplies all sites alike must be the same in value and trace
        own, pull = ((q / scale).float().double() for q in (1 / sigma**2, self.site.coupling))
        cell = float((N_CELLS / self.site.reach).float())
        return SiteTable(self.at(self.site.table, sigma).to(dtype), own.to(dtype), pull.to(dtype), cell)

    def site_posterior(self, xk: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each site given x and its neighbours (diffsq.models.site): modes xk
        (n, *half) -> (n, *shape) each, the mean in units of std(W x).

        Needs the tables of an action, `site.known`.
        """
        w, _ = self.wiener(sigma)
        table = self._site(sigma, torch.float64)
        assert table is not None
        x, mu = (self.momenta.fields(q) + self.centre for q in (xk, xk * self.momenta.expand(w)))
        rise, slopes = table.iterate(x, mu)
        scale = self.scale(sigma)[:, None, None]
        variance = slopes[:, -1].clamp_min(0) / self.site.scale(sigma)[:, None, None]
        return (mu + rise[:, -1]) / scale, variance

    def shift(self, z: Tensor, sigma: Tensor) -> Tensor:
        """What the table of the zero mode z (n,) adds to the Wiener filter, in units of sqrt(C): (n,)."""
        w, c = self.wiener(sigma)
        found: Tensor = (self.zero_mode(z, sigma) - w[:, 0] * z) / c[:, 0].sqrt()
        return found

    def features(self, xk: Tensor, sigma: Tensor) -> Tensor:
        """All features in momentum space, complex64: (n, n_feature, *half). The last acts on k = 0 only."""
        f = Features(self.filters(sigma), xk.to(torch.complex64)).stack()
        own = torch.zeros_like(f[:, :1])
        own[..., 0, 0] = self.shift(xk[..., 0, 0].real, sigma)[:, None]
        return torch.cat([f, own], 1)

    def forward(self, xk: Tensor, sigma: Tensor) -> Tensor:
        """Correction c(k) in units of sqrt(C), momentum space: xk (n, *half) complex128 -> like xk."""
        c = self.regression(xk, sigma)
        return c if (term := self.term(sigma)) is None else c + term(xk)

    def regression(self, xk: Tensor, sigma: Tensor) -> Tensor:
        """The same without the network."""
        a = self.momenta.expand(self.at(self.coefficients, sigma).transpose(1, 2))
        f = Features(self.filters(sigma), xk.to(torch.complex64))
        c = f.combine(a[:, :-1].float()).to(xk.dtype)
        c[..., 0, 0] += a[:, -1, 0, 0] * self.shift(xk[..., 0, 0].real, sigma)
        return c

    def term(self, sigma: Tensor, dtype: torch.dtype = torch.float32) -> SiteTerm | None:
        """The network at sigma (n,) or (1,)."""
        if self.network is None:
            return None
        span = self.log_sigma[[0, -1]]
        return SiteTerm(self.network, self.momenta, self.g, sigma, self.site.coupling, span, dtype)

    def normalised(self, xk: Tensor, sigma: Tensor) -> Tensor:
        """u = W x / std(W x) in position space, float32: (n, *half) -> (n, *shape)."""
        w, _ = self.wiener(sigma)
        return self.momenta.fields(xk * self.momenta.expand(w / self.scale(sigma)[:, None])).float()

    def set_action(self, action: Action, field_max: float) -> None:
        """Tables of the site posterior of a phi^4 action, fields beyond `field_max` are not resolved; without
        them, for another action, its features are zero."""
        if (form := action.phi4) is None:
            return
        sigma = self.log_sigma.exp()
        _, c = self.wiener(sigma)
        spread = (self.momenta.multiplicity * c).sum(1) / self.momenta.volume
        self.site.fit(form.kappa, form.lam, sigma, spread, field_max)

    def set_gaussian(self, g: Tensor, sigma_min: float, sigma_max: float) -> None:
        """Set G(k) per class and the geometric noise levels; the base is then the bare Wiener filter."""
        self.g.copy_(g)
        ends = (math.log(sigma_min), math.log(sigma_max))
        self.log_sigma.copy_(torch.linspace(*ends, len(self.log_sigma), dtype=torch.float64))

    def set_centre(self, phi: Fields, chunk: int) -> None:
        """<|M|> of the training fields."""
        z = zero_modes(phi, chunk).abs().mean()
        self.centre.copy_(z / math.sqrt(self.momenta.volume))

    def of_sector(self, phi: Tensor) -> Tensor:
        """phi (n, *shape) as this base sees it: in a sector phi sign(M) - <|M|>, else phi."""
        if not self.sector:
            return phi
        return phi * torch.where(phi.mean((-1, -2), keepdim=True) < 0, -1.0, 1.0) - self.centre

    def fit(
        self, phi: Fields, grad: Callable[[Tensor], Tensor] | None, noise: Noise,
        done: Callable[[], None] = lambda: None, chunk: int | None = None,
    ) -> None:  # fmt: skip
        """Least squares at each noise level, the control variate as one more regressor.

        phi (n, *shape) training fields; grad(phi) = dS/dphi, None where S is not known; noise(node) (n_fit,
        *shape) standard normal. Level i uses fields i*n_fit, ... cyclically, so that all of the ensemble is
        seen; `done` is called after each. Sums run over blocks of `chunk` fields, a number that the lattice
        sets.
        """
        chunk = chunk or block_size(self.momenta.shape, *CHUNK)
        self.fit_zero_mode(phi, chunk)
        n = len(drawn(noise, 0))
        self._solve(self.sums(Mapped(phi, self.of_sector), grad, noise, n, chunk, done))
        if grad is None:
            self.beta.zero_()

    def sums(
        self, fields: Fields, grad: Callable[[Tensor], Tensor] | None, noise: Noise, n: int, chunk: int,
        done: Callable[[], None] = lambda: None,
    ) -> Tensor:  # fmt: skip
        """Normal matrices of `_sums` at each noise level, (n_sigma, n_class, ...), of n fields as this base
        sees them: level i uses fields i*n, ... cyclically; other arguments as of `fit`."""
        found = []
        for node, log_sigma in enumerate(self.log_sigma):
            eps, total = drawn(noise, node), torch.zeros(1, dtype=torch.float64, device=self.g.device)
            for part in slices(n, chunk):
                phi = fields[(torch.arange(part.start, part.stop) + node * n) % len(fields)]
                force = None if grad is None else grad(phi + self.centre)
                total = total + self._sums(phi, force, eps[part], log_sigma.exp())
            found.append(total / n)
            done()
        return torch.stack(found)

    def fit_zero_mode(self, phi: Fields, chunk: int) -> None:
        """The table of the zero mode, from those of the training fields."""
        z = zero_modes(phi, chunk)
        if self.sector:
            z = z.abs() - math.sqrt(self.momenta.volume) * self.centre
        self.zero_mode.fit(z)

    def target(self, phik: Tensor, gradk: Tensor | None, xk: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What the correction has to predict, (phi - W x)/sqrt(C), and its control variate sqrt(C) z.

        All in momentum space, (n, *half). Given x, the control variate has mean zero; it is zero without a
        gradient.
        """
        w, c = (self.momenta.expand(q) for q in self.wiener(sigma))
        if gradk is None:
            return (phik - w * xk) / c.sqrt(), torch.zeros_like(phik)
        z = (phik - xk) / rearrange(sigma, "n -> n 1 1") ** 2 + gradk
        return (phik - w * xk) / c.sqrt(), z * c.sqrt()

    def _sums(self, phi: Tensor, grad: Tensor | None, eps: Tensor, sigma: Tensor) -> Tensor:
        """Normal matrix of (features, z, target - z) per class, summed over the chunk: (n_class, n, n)."""
        p, s = self.momenta, sigma[None]
        xk = p.modes(phi + sigma * eps)
        gradk = None if grad is None else p.modes(grad)
        target, z = self.target(p.modes(phi), gradk, xk, s)
        # what a free field leaves of target - z must be nothing: taken before the precision is lowered
        rest = torch.stack([z, target - z], 1).to(torch.complex64)
        x = torch.view_as_real(torch.cat([self.features(xk, s), rest], 1).flatten(2))
        index, weight = p.index.flatten(), p.weight.flatten()
        if x.device.type == "cpu":
            found = normal_sums(x.numpy(), index.numpy(), weight.numpy(), p.n_class)
            return torch.from_numpy(found) / p.multiplicity[:, None, None]
        rows = rearrange(x, "n i k re -> k i (n re)").double()
        return p.class_mean(
            rearrange(rows @ rows.mT, "(k0 k1) i j -> i j k0 k1", k1=p.index.shape[1])
        ).movedim(-1, 0)

    def _solve(self, sums: Tensor) -> None:
        """Coefficients from `_sums` of all nodes: of k = 0 on its own, of all other modes as polynomials in
        ln(1 + k^2), and both as polynomials in ln sigma.

        The weight of a mode is its weight in the path KL, W(k). The control variate's coefficient is fitted
        as its deviation from 1, its value for a free field: exact there.
        """
        p = self.momenta
        w, _ = self.wiener(self.log_sigma.exp())
        nodes = torch.linspace(-1, 1, len(sums), dtype=sums.dtype, device=sums.device)
        r = chebyshev(nodes, min(N_SMOOTH_SIGMA, len(sums)))
        t = p.chebyshev(N_SMOOTH_K)[:, 1:]
        solution = torch.cat(
            [
                smooth_solution(sums[:, :1], w[:, :1], r, t.new_ones(1, 1)),
                smooth_solution(sums[:, 1:], p.multiplicity[1:] * w[:, 1:], r, t),
            ],
            1,
        )
        coefficients, matrix = solution[..., :-1], sums[..., :-2, :-2]
        self.coefficients.copy_(coefficients)
        self.beta.copy_(1 + solution[..., -1])
        side = sums[..., :-2, -2] + sums[..., :-2, -1]  # of the target itself
        fitted = torch.einsum("ski,skij,skj->sk", coefficients, matrix, coefficients)
        self.explained.copy_(2 * (coefficients * side).sum(-1) - fitted)


def smooth_solution(sums: Tensor, weight: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """Least squares over nodes and modes at once, of coefficients sum_pq r_q(node) t_p(k) c_pqi in units of
    feature i's size at the node: (n_sigma, n_mode, n).

    sums (n_sigma, n_mode, n + 1, n + 1) with the right-hand side last, weight (n_sigma, n_mode) of each,
    r (n_r, n_sigma), t (n_t, n_mode).
    """
    a, b = sums[..., :-1, :-1], sums[..., :-1, -1]
    size = torch.einsum("sk,skii->si", weight / weight.sum(1, keepdim=True), a)
    # a feature of next to no power is only rounding, different on every machine: it must get no coefficient,
    # not a huge one
    unit = torch.where(size > ROUNDING * size.amax(1, keepdim=True), size, math.inf).rsqrt()
    big_a = torch.einsum("sk,pk,qk,skij->spiqj", weight, t, t, a) * unit[:, None, :, None, None]
    big_b = torch.einsum("sk,pk,ski->spi", weight, t, b) * unit[:, None]
    n = r.shape[0] * big_b[0].numel()
    whole = torch.einsum("as,bs,spiqj->apibqj", r, r, big_a * unit[:, None, None, None]).reshape(n, n)
    c = least_squares(whole, torch.einsum("as,spi->api", r, big_b).flatten())
    return torch.einsum("as,pk,si,api->ski", r, t, unit, c.reshape(len(r), *big_b.shape[1:]))


def least_squares(a: Tensor, b: Tensor) -> Tensor:
    """Solution of a x = b, (n, n) and (n,), the regressors scaled to unit power, with a small ridge."""
    power = a.diagonal()
    scale = torch.where(power > 0, power, math.inf).sqrt()
    ridge = RIDGE * torch.eye(len(a), dtype=a.dtype, device=a.device)
    solution: Tensor = torch.linalg.solve(a / scale[:, None] / scale + ridge, b / scale) / scale
    return solution
