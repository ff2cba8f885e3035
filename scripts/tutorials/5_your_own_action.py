# %% [markdown]
# # An action of your own
#
# Neither package knows of φ⁶. A few lines define it: S of each field and its gradient, for phi of shape
# (n, L, L); `even` says S(−φ) = S(φ). Everything else asks the action.

# %%
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

import diffsq
import lattice


@dataclass(frozen=True)
class Phi6(lattice.Action):
    kappa: float
    lam: float
    g6: float
    even = True

    def action(self, phi):
        bonds = sum(phi * phi.roll(-1, axis) for axis in (1, 2))
        local = (1 - 2 * self.lam) * phi**2 + self.lam * phi**4 + self.g6 * phi**6
        return (local - 2 * self.kappa * bonds).sum((1, 2))

    def grad(self, phi):
        around = sum(phi.roll(step, axis) for axis in (1, 2) for step in (-1, 1))
        local = 2 * (1 - 2 * self.lam) * phi + 4 * self.lam * phi**3 + 6 * self.g6 * phi**5
        return local - 2 * self.kappa * around


# %% [markdown]
# HMC moves it by tensors, from hot and cold starts; the certificate says whether it sampled exp(−S).

# %%
changes = ["action=null", "ensemble.cluster=none", "ensemble.n_chains=64", "ensemble.n_configs=8192"]
config = diffsq.load_config("tiny", changes)
ensemble = lattice.simulate(Phi6(0.24, 0.05, 0.02), (8, 8), config.ensemble, seed=7, out="runs/tutorial_5/mc")
print("certificate:", "passed" if ensemble.attrs["certificate"]["passed"] else "FAILED")

# %% [markdown]
# A score model learns these fields; the weights of its draws make them exact: both columns have one limit.

# %%
model = diffsq.train(config, ensemble, "runs/tutorial_5/train")
samples = diffsq.sample(config, model, ensemble, "runs/tutorial_5/samples")
tables = {"Monte Carlo": lattice.measure(ensemble), "weighted": lattice.measure(samples)}
print(lattice.format_table(tables))
weights = np.exp(samples.log_weight - samples.log_weight.max()).repeat(64)
for label, phi, w in (("Monte Carlo", ensemble.phi, None), ("weighted", samples.phi, weights)):
    plt.hist(phi.ravel(), np.linspace(-3, 3, 50), weights=w, density=True, histtype="step", label=label)
plt.legend()
plt.savefig("5_your_own_action.png", dpi=120)
a, b = (table["observables"]["phi2"] for table in tables.values())
pull = (b["value"] - a["value"]) / np.hypot(a["error"], b["error"])
print(f"<phi^2>, weighted: {lattice.format_value(b['value'], b['error'])}, pull {pull:+.1f}")
