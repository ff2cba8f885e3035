# %% [markdown]
# # A bad sampler costs efficiency, never correctness
#
# The weights of denoising paths obey E[w] = Z for any network and any number of steps. We spoil the sampler
# on purpose, with 2 and 4 steps where 16 are good, and look at what becomes of ln Z.

# %%
import matplotlib.pyplot as plt
import numpy as np

import diffsq
import lattice
from diffsq.exactness.weights import acceptance
from lattice.statistics.weights import ess_words, spread_of

few = ["action.kappa=0.26", "model.channels=0"]
action = lattice.ScalarPhi4(kappa=0.26, lam=0.022)
config = diffsq.load_config("tiny", few)
ensemble = lattice.simulate(action, (8, 8), config.ensemble, seed=1, out="runs/tutorial_3/ensemble")
model = diffsq.train(config, ensemble, "runs/tutorial_3/train")

# %% [markdown]
# The effective sample size, beside it what it would be if ln w were Gaussian, e^{-Var ln w}, and the share of
# the largest weight; the acceptance of independence Metropolis with the samples as proposals, and
# ln Z = ln E[w].

# %%
figure, axes = plt.subplots(figsize=(5, 3), constrained_layout=True)
ln_z, bins = {}, np.linspace(-4, 2, 60)
for n in (2, 4, 16):
    config = diffsq.load_config("tiny", [*few, f"sampling.n_levels={n}"])
    log_weight = diffsq.sample(config, model, ensemble, f"runs/tutorial_3/samples-{n}").log_weight
    ess = ess_words(*lattice.effective_sample_size(log_weight), spread_of(log_weight))
    accepted = lattice.format_value(*acceptance(log_weight, seed=1))
    ln_z[n] = diffsq.ln_z(log_weight)
    print(f"{n:2} steps: ESS/N {ess}, acceptance {accepted}, ln Z = {lattice.format_value(*ln_z[n])}")
    axes.hist(log_weight - np.median(log_weight), bins, density=True, histtype="step", label=f"{n} steps")
axes.set(xlabel=r"$\ln w$ - median", ylabel="density")
axes.legend()
figure.savefig("3_exactness.png", dpi=120)

# %% [markdown]
# The truth comes from a method that knows nothing of diffusion, thermodynamic integration:
# ln Z(κ) = V ln z₁ + ∫₀^κ 2⟨Σ φ_x φ_{x+μ}⟩ dk, z₁ the integral of one site.

# %%
truth = lattice.thermodynamic_integration(action, (8, 8), seed=2, n_chains=32)
print(f"thermodynamic integration: ln Z = {lattice.format_value(truth.value, truth.error)}")

# %%
value, error = ln_z[16]
pull = (value - truth.value) / np.hypot(error, truth.error)
print(f"ln Z of 16 steps: {lattice.format_value(value, error)}, pull {pull:+.1f}")
