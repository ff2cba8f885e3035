"""The bare Wiener filter as the base of a U-Net: D = W x until the network has learned something.

Of the regression's fit only that is left which does not enter D: the law of the zero mode, for the kernel of
the reverse steps, and the weight of the control variate, for the target of the training. Given x the control
variate averages to zero whatever its weight, so that the target stays unbiased; its variance is smallest for

    beta(k) = <t z> / <z z>,

since no function of x that the network could take off t is correlated with z.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsq.models.blocks import Fields, block_size, drawn, slices, zero_modes
from diffsq.models.protocol import Noise
from diffsq.models.regression import CHUNK, RegressionBase


@torch.no_grad()
def fit_wiener(
    base: RegressionBase, phi: Fields, grad: Callable[[Tensor], Tensor] | None, noise: Noise,
    done: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Set the tables of a base whose G(k) and noise levels are set, and leave it the bare Wiener filter.

    Arguments as of `RegressionBase.fit`: phi (n, *shape) training fields, noise(node) (n_fit, *shape).
    Without a gradient beta stays 0.
    """
    p = base.momenta
    chunk = block_size(p.shape, *CHUNK)
    base.zero_mode.fit(zero_modes(phi, chunk))
    for node, log_sigma in enumerate(base.log_sigma):
        if grad is None:
            done()
            continue
        eps, sigma = drawn(noise, node), log_sigma.exp()
        n, products = len(eps), base.beta.new_zeros(2, p.n_class)
        for part in slices(n, chunk):
            fields = phi[(torch.arange(part.start, part.stop) + node * n) % len(phi)]
            xk = p.modes(fields + sigma * eps[part])
            t, z = base.target(p.modes(fields), p.modes(grad(fields)), xk, sigma[None])
            both = torch.stack([(t * z.conj()).real, z.abs() ** 2])
            products += p.class_mean(both).sum(1)
        base.beta[node] = products[0] / products[1]
        done()
