"""The figures of a scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def legend_of(figure: Any) -> Any:
    return figure.legends[0] if figure.legends else figure.axes[0].get_legend()


def test_figures_of_a_scan(scanned: tuple[Path, dict[str, Any]]) -> None:
    from diffsq import plots

    block = json.loads(json.dumps(scanned[1]["crossings"][0]))
    kappa = block["pairs"][0].get("kappa", 0.2)
    block["pairs"] = [{"L": [4, 6], "kappa": kappa, "kappa_error": 1e-3, "value": 0.3, "value_error": 0.01}]
    block["limit"] = {"kappa": {"limit": kappa, "total_error": 1e-3}}
    figures = plots.scan_figures({**scanned[1], "crossings": [block]})
    names = {"magnetization", "susceptibility", "binder", "correlation_length", "tau", "crossing"}
    assert set(figures) == names
    for name, figure in figures.items():
        (axes,) = figure.axes
        assert "[$\\kappa$" in axes.get_xlabel(), name
        assert "[" in axes.get_ylabel(), name
        texts = [text.get_text() for text in legend_of(figure).get_texts()]
        assert {"$L = 4$", "$L = 6$"} <= set(texts), name
    texts = [text.get_text() for text in legend_of(figures["crossing"]).get_texts()]
    assert any("4 \\times 6" in text for text in texts)
    assert any("kappa_c" in text for text in texts)
