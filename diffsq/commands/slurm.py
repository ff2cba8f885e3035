"""A scan as a Slurm array, one point a task, through submitit
(https://github.com/facebookincubator/submitit).

    diffsq ensemble scan_binder --submit slurm_partition=cpu timeout_min=120 cpus_per_task=8

Every task makes its point in a folder of its own. The same command with --collect in place of --submit reads
what is finished, lists the other points as failed with the reason, and prints the table; it makes nothing, so
it is fit for a login node. Submitting again goes on with the points that are not finished. Couplings are what
an array splits; to split the chains of one point as well, start the command itself with `torchrun` inside an
allocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffsq.config.yaml_file import read_value
from lattice.errors import InputError
from lattice.scans.scan import ScanPoint, make_point


def submit_scan(
    points: Sequence[ScanPoint], out: Path, seed: int, settings: Sequence[str], *, keep_fields: bool = False
) -> list[str]:
    """Submit one task per point; returns the job ids. `settings` are "name=value" of submitit's
    `update_parameters` (timeout_min, cpus_per_task, mem_gb, slurm_partition, slurm_array_parallelism, ...),
    and cluster=slurm (default), local or debug.

    Logs go to `out`/scan/slurm. Raises InputError when submitit is missing, for settings it does not know,
    and when there is no Slurm here.
    """
    try:
        import submitit
    except ImportError:
        raise InputError("--submit needs submitit: pip install 'diffsq[slurm]'") from None
    values = dict(_setting(text) for text in settings)
    cluster = str(values.pop("cluster", "slurm"))
    try:
        executor = submitit.AutoExecutor(folder=Path(out) / "scan" / "slurm", cluster=cluster)
        executor.update_parameters(name="diffsq-scan", **values)
    except (RuntimeError, ValueError, NameError, TypeError, KeyError) as error:
        raise InputError(f"--submit: {' '.join(str(error).split())}") from None
    folders = [Path(out).resolve() / "scan" / point.name for point in points]
    same = [seed] * len(points), [keep_fields] * len(points)
    return [str(job.job_id) for job in executor.map_array(make_point, list(points), folders, *same)]


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"--submit takes NAME=VALUE, such as timeout_min=60, got {text!r}")
    return name, read_value(value, f"--submit {name}")
