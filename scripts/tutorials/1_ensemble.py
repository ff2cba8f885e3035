# %% [markdown]
# # An ensemble, and whether it is right
#
# Two-dimensional φ⁴ in the κ–λ convention, S = Σ_x [−2κ Σ_μ φ_x φ_{x+μ} + (1 − 2λ) φ_x² + λ φ_x⁴].
# `simulate` thermalises chains from hot, cold and domain-wall starts, tunes HMC while doing so, then saves
# configurations with cluster updates between them. The same call again reads what is there.

# %%
import matplotlib.pyplot as plt

import lattice
from lattice.exact.scalar import small_lattice

action = lattice.ScalarPhi4(kappa=0.27, lam=0.022)
settings = lattice.MonteCarlo(n_configs=16384, n_chains=64, n_therm=200)
ensemble = lattice.simulate(action, (8, 8), settings, seed=1, out="runs/tutorial_1/phi4")
print(f"{len(ensemble)} configurations on {ensemble.shape}, fields of shape {ensemble.phi.shape}")

# %% [markdown]
# Every ensemble carries a certificate: do all starts agree, is there drift, is ⟨exp(−ΔH)⟩ = 1, does the
# Schwinger–Dyson identity hold? An ensemble that fails says which.

# %%
certificate = ensemble.attrs["certificate"]
for check in certificate["checks"][:4]:
    print(f"{'passed' if check['passed'] else 'FAILED'}  {check['name']}")
print(f"... {sum(check['passed'] for check in certificate['checks'])} of {len(certificate['checks'])} passed")

# %% [markdown]
# All observables at once, errors by the Gamma method over chains, τ_int = ½ + Σ ρ.

# %%
table = lattice.measure(ensemble)
print(lattice.format_table({"HMC + Wolff": table}))

# %% [markdown]
# The magnetisation tunnels between its two signs: one chain, and all of them.

# %%
magnetization = ensemble.series["magnetization"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), constrained_layout=True)
left.plot(magnetization[ensemble.replicas()[0]], lw=0.8)
left.set(xlabel="trajectory", ylabel="$M$ of one chain")
right.hist(magnetization, bins=60, density=True)
right.set(xlabel="$M$", ylabel="$P(M)$")
figure.savefig("1_ensemble.png", dpi=120)

# %% [markdown]
# Is it the right distribution? On four sites the integral over all fields can be done by quadrature.

# %%
small = lattice.simulate(action, (2, 2), settings, seed=1, out="runs/tutorial_1/four_sites")
exact = small_lattice(action, (2, 2)).abs_m
found = lattice.gamma_method([abs(small.series["magnetization"][chain]) for chain in small.replicas()])
pull = (found.value - exact) / found.error
print(f"<|M|> on 2x2: {found}, exact {exact:.5f}, pull {pull:+.1f}")
