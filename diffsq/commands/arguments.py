"""The command line's words: every command, its options and its help.

Plain argparse: the pydantic models of `diffsq.config` already give types, ranges and the names of unknown
keys, each as one line; a second layer over them would only be a second place where errors are worded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from diffsq import __version__
from diffsq.config.names import CHECK_NAMES, STAGE_NAMES
from lattice.errors import InputError

DESCRIPTION = """\
Diffusion models as exact samplers for lattice field theory: from an action to a certified Monte Carlo
ensemble, a trained score, a sample with exact path-space weights, the table of observables, an HTML report.
Every command that is interrupted resumes when it is given again."""
EPILOG = """\
start with:  diffsq run demo                        the whole job, in runs/demo
             diffsq configs                         the configs that come with it: CONFIG is a name or a file
             diffsq doctor                          versions, device and a short self-test
each command explains itself:  diffsq train --help"""
WORDS = {
    "run": (
        "all stages: ensemble, train, sample, measure, report",
        "Run every stage in order. Finished stages with unchanged settings are skipped, an interrupted one "
        "resumes. Ends with the table of observables (training, raw, weighted, Metropolis) and "
        "the path of the report.",
        "diffsq run demo --run runs/kappa26 --set action.kappa=0.26 --dry-run",
    ),
    "ensemble": (
        "make the certified Monte Carlo ensemble",
        "HMC interleaved with cluster updates, tuned while thermalising from hot, cold and domain-wall "
        "starts; writes HDF5 shards, a manifest and a certificate (thermalisation, tau_int, acceptance, "
        "<exp(-dH)>, Schwinger-Dyson). "
        "Exit code 1 if the certificate fails. With --scan, or a file that lists points: one small ensemble "
        "per point, in resumable folders under DIR/scan, with a table, figures, Binder crossings, and pulls "
        "against published values where the file has them; exit code 1 if a point failed or values differ.",
        "diffsq ensemble demo --scan kappa=0.26:0.28:9 L=16,32 --set ensemble.n_configs=8192",
    ),
    "train": (
        "train the score on the run's ensemble",
        "Closed-form regression base, then the U-Net by denoising score matching; held-out path KL per sigma "
        "and momentum shell. Refuses an ensemble without a passed certificate, unless --accept-uncertified.",
        "diffsq train demo --set training.n_steps=5000 training.learning_rate=1e-3",
    ),
    "sample": (
        "draw configurations with the trained score",
        "The reverse process. The method `path` gives every configuration its exact log-weight; `euler`, "
        "`pc` and `heun` have none.",
        "diffsq sample demo --set sampling.n_samples=20000",
    ),
    "measure": (
        "observables of any ensemble, with errors",
        "|M|, susceptibility, Binder cumulant, action density, two-point function, xi_2nd, cumulants: "
        "value(error) by the Gamma method over replicas, with tau_int; of one variable moments and cumulants "
        "by the jackknife over whole chains, beside the exact numbers; a weighted ensemble by "
        "self-normalised weights and the jackknife. Several weighted samples of one model are pooled, "
        "whatever their seeds; --metropolis needs one seed.",
        "diffsq measure runs/demo/samples/score-ve --metropolis --json > metropolis.json",
    ),
    "compare": (
        "two ensembles side by side, with pulls and a verdict",
        "Measures what is not measured yet. Exit code 1 when the verdict is `differ`.",
        "diffsq compare runs/demo/ensemble runs/demo/samples/score-ve",
    ),
    "import": (
        "check a foreign ensemble, and take it over",
        "Reads .npy, .npz or HDF5 fields (known by their content) whose action you declare, tests them "
        "(Schwinger-Dyson, s, a guard against a short certified run of our own), and writes an ensemble "
        "folder. Exit code 1, and nothing written, when the file fails the checks, unless "
        "--accept-uncertified.",
        "diffsq import fields.npy --set action.kappa=0.27 --set action.lam=0.022 --out runs/theirs",
    ),
    "export": (
        "an ensemble for another analysis package",
        "Writes the series of an ensemble for pyerrors (Obs in json.gz) or arviz; prints the files.",
        "diffsq export runs/demo/ensemble --to pyerrors --out demo.json.gz",
    ),
    "report": (
        "one self-contained HTML file of a run",
        "Measures again if anything changed, then writes summary.json and report.html into the run folder.",
        "diffsq report runs/demo",
    ),
    "check": (
        "one check of a finished run, with a figure",
        "calibration: ranks of held-out fields among reverse draws. learned: the score against the action, "
        "and the couplings it knows. score: its true error, by level and momentum. "
        "likelihood: probability-flow likelihood against the path weights. "
        "free-energy: ln Z and its differences. curves: a family at many couplings. criticality: tau_int and "
        "cost of samplers through kappa_c. published: the papers' recipe. flow: flow against path, "
        "and averages without the bias of finite steps. polish: bias against HMC trajectories. levels: where "
        "the efficiency is lost. cumulants: kappa_n(t) both ways, per site, of M and per mode. spectrum: "
        "singular values of the networks beside random matrices. Of one variable: samplers: other "
        "samplers and numbers of levels. limits: the flow without "
        "sampling error. cumulants. fokker-planck: circulation and residual of the learned law. "
        "learned-action: S_DM against S. strip: weight beyond the strip of complex Langevin. "
        "Of a Gaussian machine: machine: what it has learned, and what its fields say. learning: rates and "
        "limits. gibbs: its sampler. quartic: K and lambda by score matching. pictures: likelihood, "
        "regenerated pictures. Of watched training: pairs: levels and Wigner's law. teacher-student: fresh "
        "data and single sets. text-spectra: bulk and outliers of a transformer. "
        "Of binary machines of spins: spin-flow: where v -> h -> v ends, by three thermometers, and whether "
        "that is criticality. field-flow: the same in a field. real-space: block spins beside it. "
        "Of the real field of an Ising model: spins. "
        "Of U(1) links: topology: P(Q), how fast Q forgets. freezing: what samplers cost. rescaling: one "
        "model at other beta. theta: Z(theta) by weights. "
        "Of random networks: networks: cumulants against exact ones, and what may be claimed. network-score: "
        "cumulants along the diffusion and the action it learned. network-phi4: phi^4 in 1/N. "
        "Writes RUN/checks/NAME.json and NAME.png. Exit code 1 when the verdict is "
        "negative.",
        "diffsq check calibration runs/demo --set n_fields=1000",
    ),
    "chain": (
        "a Markov chain of diffusion moves, HMC and clusters",
        "Cycles the moves of the config's `chain` section, with the model and the path of a "
        "finished run: independence and latent moves of its flow or paths, noise and denoise (of blocks: on "
        "lattices larger than its own), HMC, Wolff clusters, overrelaxation. Exact for any model. Writes "
        "RUN/chain, an ordinary ensemble, and prints acceptance and tau_int; an interrupted chain resumes.",
        "diffsq chain demo --set chain.moves=[denoise,hmc] chain.depth=2 chain.n_steps=1000",
    ),
    "spectrum": (
        "singular values of any model's weights beside random ones",
        "Every matrix of a safetensors file or a PyTorch state dict: Kolmogorov-Smirnov distance to "
        "Marchenko-Pastur beside Gaussian matrices of its shape, outliers above the Tracy-Widom edge, stable "
        "rank, spacing ratios. Kernels of convolutions as (c_out, rest). Code in a file is never run.",
        "diffsq spectrum runs/demo/train/score/weights.safetensors --only unet",
    ),
    "configs": (
        "the configs that come with diffsq",
        "Lists the presets with one line each, or prints one as YAML, to be kept and changed. Every command "
        "that takes CONFIG takes a preset by name where no file of that name exists.",
        "diffsq configs demo > my.yaml",
    ),
    "doctor": (
        "versions, device, threads, disk, and a short self-test",
        "Checks this installation: prints what a bug report needs and tests a few identities.",
        "diffsq doctor",
    ),
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="diffsq", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"diffsq {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (brief, text, example) in WORDS.items():
        sub = commands.add_parser(
            name, help=brief, description=text, epilog=f"example:  {example}", allow_abbrev=False
        )
        sub.set_defaults(command=name)
        OPTIONS[name](sub)
    return parser


def _stage(sub: argparse.ArgumentParser, needed: bool = True) -> None:
    _config(sub, "lattice.shape=[32,32]", needed)
    sub.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and what would be done"
    )
    _machine(sub)
    sub.add_argument("--accept-uncertified", action="store_true", help="train on an ensemble that failed")
    sub.add_argument(
        "--restart", metavar="STAGE", choices=STAGE_NAMES, help="first discard this stage and all after it"
    )


def _sample(sub: argparse.ArgumentParser) -> None:
    _stage(sub, needed=False)
    sub.add_argument(
        "--model",
        metavar="FAMILY",
        help="a model of many theories, by name or folder: no CONFIG, no training",
    )


def _ensemble(sub: argparse.ArgumentParser) -> None:
    _stage(sub)
    sub.add_argument(
        "--scan", metavar="KEY=VALUES", nargs="+", action="extend", default=[],
        help="kappa, lam or L: 0.26,0.27 or start:stop:n (both ends); the product of all that are given",
    )  # fmt: skip
    sub.add_argument(
        "--keep-fields", action="store_true",
        help="keep the configurations of a scan's points (default: only what was measured)",
    )  # fmt: skip
    sub.add_argument(
        "--submit", metavar="NAME=VALUE", nargs="*",
        help="a scan as a Slurm array through submitit: slurm_partition=cpu timeout_min=60 ...",
    )  # fmt: skip
    sub.add_argument(
        "--collect", action="store_true",
        help="make nothing: table and figures of the points that are finished, after --submit",
    )  # fmt: skip


def _measure(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "file", metavar="FILE", type=Path, nargs="+",
        help="ensemble folder (with manifest.json), or one .h5 file; several: weighted samples of one law",
    )  # fmt: skip
    _json(sub)
    sub.add_argument("--all", action="store_true", help="print every cumulant, not only the usual ones")
    sub.add_argument(
        "--method", choices=("gamma", "jackknife"),
        help="of the errors without weights: Gamma method (default on a lattice) or jackknife (default of "
        "one variable), each a second opinion on the other",
    )  # fmt: skip
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "--metropolis", action="store_true", help="correct by independence Metropolis, not by weights"
    )
    how.add_argument("--raw", action="store_true", help="ignore the weights: the uncorrected sampler")
    sub.add_argument("--seed", type=int, default=1, help="of the Metropolis accept steps (default 1)")


def _compare(sub: argparse.ArgumentParser) -> None:
    for letter in "AB":
        sub.add_argument(
            letter.lower(), metavar=letter, type=Path, help="ensemble folder, .h5 file, or measure JSON"
        )
    _json(sub)


def _import(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", metavar="FILE", type=Path, help=".npy, .npz or HDF5 file of fields (n, ...)")
    sub.add_argument(
        "--layout", metavar="ORDER",
        help="order of the axes: n,lattice (default), lattice,n, chain,n,lattice, n,chain,lattice, or of "
        "flat fields n,sites (last lattice axis fastest) or n,sites_f; a channel of extent 1 is `channel`",
    )  # fmt: skip
    _set(
        sub,
        "KEY=VALUE",
        "action.kappa and action.lam, or action.convention (bare, flow, schaich-loinaz) with "
        "action.mass2 and action.coupling; lattice.shape",
    )
    sub.add_argument(
        "--dataset", metavar="NAME", help="which dataset, or group of one for each configuration"
    )
    sub.add_argument("--n-chains", metavar="N", type=int, help="number of chains the file holds")
    sub.add_argument("--stride", metavar="N", type=int, help="trajectories between two configurations")
    sub.add_argument("--out", metavar="DIR", type=Path, help="write the ensemble there (default: only check)")
    sub.add_argument(
        "--accept-uncertified", action="store_true", help="take it over although it failed the checks"
    )
    sub.add_argument("--seed", type=int, default=1, help="of the run it is compared with (default 1)")
    _quiet(sub)


def _export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("ensemble", metavar="ENSEMBLE", type=Path, help="ensemble folder, or one .h5 file")
    sub.add_argument(
        "--to", metavar="KIND", choices=("pyerrors", "arviz"), required=True, help="pyerrors or arviz"
    )
    sub.add_argument("--out", metavar="FILE", type=Path, required=True, help="file to write")
    sub.add_argument("--fields", action="store_true", help="arviz only: the configurations too, as phi")


def _report(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", metavar="RUN", type=Path, help="run folder")
    _quiet(sub)


def _check(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", choices=CHECK_NAMES, help=", ".join(CHECK_NAMES))
    sub.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    _set(sub, "NAME=VALUE", "options of the check, such as n_fields=1000; a wrong name lists them all")
    _json(sub)
    _machine(sub)


def _chain(sub: argparse.ArgumentParser) -> None:
    _config(sub, "chain.n_steps=1000")
    _json(sub)
    _machine(sub)


def _spectrum(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "file", metavar="FILE", type=Path, help="weights: .safetensors, or a state dict (.pt, .pth)"
    )
    sub.add_argument("--only", metavar="PREFIX", default="", help="only arrays whose names begin so")
    sub.add_argument(
        "--figure", metavar="FILE", type=Path, help="draw the densities there: .png, .svg or .pdf"
    )
    _json(sub)
    _quiet(sub)


def _configs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", nargs="?", help="print this preset as YAML")


def _doctor(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "folder", metavar="FOLDER", type=Path, nargs="?", default=Path("."), help="where runs would go"
    )


def _config(sub: argparse.ArgumentParser, example: str, needed: bool = True) -> None:
    """The words of every command that works on the run of a config."""
    sub.add_argument(
        "config", metavar="CONFIG", type=Path, nargs=None if needed else "?",
        help="YAML file, or a preset of `diffsq configs`",
    )  # fmt: skip
    sub.add_argument("--run", metavar="DIR", type=Path, help="run folder (default runs/<name>)")
    _set(sub, "KEY=VALUE", f"override config values, such as {example}; repeatable")


def _set(sub: argparse.ArgumentParser, metavar: str, text: str) -> None:
    sub.add_argument("--set", metavar=metavar, nargs="+", action="extend", default=[], help=text)


def _machine(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, or auto (default): cuda where there is one"
    )
    sub.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    _quiet(sub)


def _quiet(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--quiet", action="store_true", help="no progress, only the results")


def _json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="print JSON")


OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "run": _stage, "ensemble": _ensemble, "train": _stage, "sample": _sample, "measure": _measure,
    "compare": _compare, "import": _import, "export": _export, "report": _report, "check": _check,
    "chain": _chain, "spectrum": _spectrum, "configs": _configs, "doctor": _doctor,
}  # fmt: skip
