"""A run whose stages write a file each: what the folder does is then to be seen at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from diffsq import stages
from diffsq.config.config import Config, config_from_dict
from diffsq.run_folder import records
from diffsq.run_folder.records import STAGES, Run
from lattice.certificates.check import make_check
from lattice.progress import Progress

OWN = {"ensemble": "shard-0000.h5", "train": "score/model.json", "sample": "score-ve/forward.json"}


def longer(run: Run) -> tuple[int, int]:
    """The numbers that a run may be asked more of."""
    return run.config.ensemble.n_configs, run.config.sampling.n_samples


def fake_stages(log: list[str], certified: bool = True) -> dict[str, Callable[[Run, Progress], str]]:
    """Stage functions that write one file each and note that they ran."""

    def stage(name: str) -> Callable[[Run, Progress], str]:
        def work(run: Run, progress: Progress) -> str:
            if name == "train":
                stages.require_certificate(run)
            log.append(name)
            progress.start(1, name)
            progress.update(1)
            if name in records.FOLDER:
                out = run.out(name)
                out.mkdir(exist_ok=True)
                (out / OWN[name]).parent.mkdir(exist_ok=True)
                (out / OWN[name]).write_text(f"{name} {run.config.seed} {longer(run)}")
                if name == "ensemble":
                    check = make_check("drift", 0.0, 1.0, "0", certified, "")
                    reason = "" if certified else "failed: drift"
                    content = {"passed": certified, "reason": reason, "checks": [check]}
                    (out / "certificate.json").write_text(json.dumps(content))
            else:
                (run.folder / records.PRODUCT[name]).write_text("{}")
            return f"identity of {name} {longer(run)[0] if name == 'ensemble' else longer(run)}"

        return work

    return {name: stage(name) for name in STAGES}


def changed(settings: dict[str, Any], section: str, **values: Any) -> Config:
    return config_from_dict({**settings, section: {**settings.get(section, {}), **values}})


def quiet(text: str) -> None:
    """Say nothing."""
