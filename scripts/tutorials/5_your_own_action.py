"""An action of your own, from its formula to exact samples; nothing of the two packages is changed.

    S = sum_x [ -2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lam) phi_x^2 + lam phi_x^4 + g6 phi_x^6 ]

It writes into the folder `own_action`, and reads what is there when run again.
"""

# %% The action: S of each field and its gradient, phi (n, L, L) float64. `even` says S(-phi) = S(phi).
from dataclasses import dataclass
from pathlib import Path

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


# %% The settings of a run, its action null: that of the ensemble.
out = Path("own_action")
out.mkdir(exist_ok=True)
(out / "settings.yaml").write_text("""name: own_action
seed: 7
action: null
lattice: {shape: [8, 8]}
ensemble: {n_configs: 8192, n_chains: 64, n_therm: 250, cluster: none}
sde: {sigma_min: 0.25}
model: {channels: 4, n_levels: 2, n_sigma: 16, n_fit: 1024}
training: {n_steps: 100, batch_size: 64, learning_rate: 5e-3, warmup: 20}
sampling: {n_samples: 1024, n_levels: 20, n_forward: 256, n_calibration: 512}""")
config = diffsq.load_config(out / "settings.yaml")

# %% An ensemble by HMC, from hot and cold starts, with its certificate: does it sample exp(-S)?
action = Phi6(kappa=0.24, lam=0.05, g6=0.02)
ensemble = lattice.simulate(action, (8, 8), config.ensemble, seed=config.seed, out=out / "ensemble")
print("certificate:", "passed" if ensemble.attrs["certificate"]["passed"] else "FAILED")

# %% Learn the score of the noised fields, draw from the reverse process, weigh each draw by its path.
diffsq.train(config, ensemble, out / "train")
samples = diffsq.sample(config, out / "train" / "model", ensemble, out / "samples")

# %% The weights make the samples exact: both columns have the same limit.
print(lattice.format_table({"Monte Carlo": lattice.measure(ensemble), "diffusion": lattice.measure(samples)}))
print("ESS/N", lattice.format_value(*lattice.effective_sample_size(samples.log_weight)))
