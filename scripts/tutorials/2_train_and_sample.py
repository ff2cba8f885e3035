# %% [markdown]
# # Learn a distribution, draw from it
#
# A config names everything a run needs. `tiny` comes with diffsq (`diffsq configs` lists the others); any of
# its settings can be replaced. First the training data.

# %%
import matplotlib.pyplot as plt
import numpy as np

import diffsq
import lattice

config = diffsq.load_config("tiny", ["action.kappa=0.26", "ensemble.n_configs=8192", "model.channels=0"])
action = lattice.ScalarPhi4(kappa=0.26, lam=0.022)
ensemble = lattice.simulate(action, (8, 8), config.ensemble, seed=1, out="runs/tutorial_2/ensemble")

# %% [markdown]
# The model is the posterior mean D(x, σ) = E[φ | x = φ + σε]; the score is (D − x)/σ². Its closed-form part,
# a regression on the Wiener filter and on the posterior mean of each site, is enough here:
# `model.channels=0` leaves the U-Net out.

# %%
model = diffsq.train(config, ensemble, "runs/tutorial_2/train")

# %% [markdown]
# Sampling runs the noise backwards, from independent momentum modes to fields in 20 steps. Each field keeps
# the weight of its whole path, log w = −S(φ) + log F − log R with the densities F of noising and R of
# denoising, and with it the sample is exact; the table says how many samples the weights leave.

# %%
samples = diffsq.sample(config, model, ensemble, "runs/tutorial_2/samples")
tables = {
    "Monte Carlo": lattice.measure(ensemble),
    "raw": lattice.measure(samples, ignore_weights=True),
    "weighted": lattice.measure(samples),
}
print(lattice.format_table(tables))

# %% [markdown]
# The magnetisation before and after the correction.

# %%
bins = np.linspace(-2, 2, 50)
figure, axes = plt.subplots(figsize=(5, 3), constrained_layout=True)
axes.hist(ensemble.series["magnetization"], bins, density=True, alpha=0.4, label="Monte Carlo")
weights = np.exp(samples.log_weight - samples.log_weight.max())
for label, w in (("raw", None), ("weighted", weights)):
    axes.hist(samples.series["magnetization"], bins, weights=w, density=True, histtype="step", label=label)
axes.set(xlabel="$M$", ylabel="$P(M)$")
axes.legend()
figure.savefig("2_train_and_sample.png", dpi=120)

# %%
found, truth = (tables[name]["observables"]["phi2"] for name in ("weighted", "Monte Carlo"))
pull = (found["value"] - truth["value"]) / np.hypot(found["error"], truth["error"])
print(f"<phi^2>, weighted: {lattice.format_value(found['value'], found['error'])}, pull {pull:+.1f}")
