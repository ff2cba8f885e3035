# %% [markdown]
# # A sign problem, and complex Langevin
#
# S = ½σ₀z² + ¼λz⁴ with σ₀ = 1 + i and λ = 1: exp(−S) on the real axis is no probability. Complex Langevin
# lets z = x + iy wander into the plane, dz = −S′(z) dt + noise on x, and finds a law P(x, y) whose averages
# of holomorphic functions are those wanted. Not always, so each ensemble comes with a verdict.

# %%
import matplotlib.pyplot as plt

import lattice
from lattice.exact.one_variable import toy_moments

settings = lattice.ComplexLangevin(n_configs=100_000, n_chains=1000)
action = lattice.ComplexQuartic(1 + 1j, 1.0)
ensemble = lattice.simulate(action, (), settings, seed=1, out="runs/tutorial_4/quartic")
print("verdict:", ensemble.attrs["certificate"]["verdict"])

# %% [markdown]
# The same with σ₀ = ½ + 4i, where the drift has a power-law tail: the moments would be wrong, and the verdict
# says so.

# %%
bad = lattice.simulate(lattice.ComplexQuartic(0.5 + 4j, 1.0), (), settings, seed=1, out="runs/tutorial_4/bad")
print("verdict:", bad.attrs["certificate"]["verdict"], "-", bad.attrs["certificate"]["reason"])

# %% [markdown]
# What it samples: a strip around the real axis, not the axis itself.

# %%
x, y = ensemble.phi.reshape(-1, 2).T
figure, axes = plt.subplots(figsize=(5, 3), constrained_layout=True)
axes.hist2d(x, y, bins=120, cmap="Blues", norm="log")
axes.set(xlabel="$x$", ylabel="$y$")
figure.savefig("4_complex_langevin.png", dpi=120)

# %% [markdown]
# Moments against quadrature of exp(−S) along the real axis.

# %%
z = x + 1j * y
orders = (2, 4, 6)
for n, exact in zip(orders, toy_moments(action, orders)):
    for part, truth in (("real", exact.real), ("imag", exact.imag)):
        found = lattice.gamma_method([getattr(z[chain] ** n, part) for chain in ensemble.replicas()])
        print(f"<z^{n}>.{part}  {found!s:>14}  exact {truth:+.5f}")

# %%
exact = toy_moments(action, [4])[0].imag
found = lattice.gamma_method([(z[chain] ** 4).imag for chain in ensemble.replicas()])
print(f"Im <z^4>: {found}, exact {exact:.5f}, pull {(found.value - exact) / found.error:+.1f}")
