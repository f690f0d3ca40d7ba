"""The result as a picture; run in the peer's environment, which has matplotlib.

python -m peers.plot REPORT.json OUT     writes OUT.png and OUT.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
# The same report gives the same file: no random ids, no date.
matplotlib.rcParams["svg.hashsalt"] = "quintet"

import matplotlib.pyplot as plt  # noqa: E402 - the backend is chosen first

LOWER_IS_BETTER = ("load", "memory")
COLOURS = {"Q4_0": "#1b6ca8", "Q4_K_M": "#3fa7d6", "Q6_K": "#59a14f", "Q8_0": "#e8963e"}
OTHER = "#8c6bb1"


def draw(report: dict[str, Any]) -> plt.Figure:
    """For each model, the ratio to llama.cpp of every cell, a bar per format."""
    models = list(dict.fromkeys(result["model"] for result in report["results"]))
    figure, axes = plt.subplots(
        len(models), 1, figsize=(11, 3.4 * len(models) + 0.6), squeeze=False, layout="constrained"
    )
    for axis, model in zip(axes[:, 0], models, strict=True):
        _draw_model(axis, model, [r for r in report["results"] if r["model"] == model])
    machine = report["machine"]
    figure.suptitle(
        f"Quintet against llama.cpp: {machine['cpu']}, {report['num_threads']} threads, "
        f"{report['date']}"
    )
    return figure


def _draw_model(axis: plt.Axes, model: str, results: list[dict[str, Any]]) -> None:
    results = [result for result in results if "error" not in result]
    cells = list(dict.fromkeys(cell["cell"] for result in results for cell in result["cells"]))
    width = 0.8 / max(1, len(results))
    for i, result in enumerate(results):
        ratios = {
            cell["cell"]: 1 / cell["ratio"] if cell["cell"] in LOWER_IS_BETTER else cell["ratio"]
            for cell in result["cells"]
            if cell["ratio"] is not None
        }
        present = [j for j, cell in enumerate(cells) if cell in ratios]
        places = [j + (i - (len(results) - 1) / 2) * width for j in present]
        heights = [ratios[cells[j]] for j in present]
        colour = COLOURS.get(result["format"], OTHER)
        bars = axis.bar(places, heights, width, label=result["format"], color=colour)
        axis.bar_label(bars, fmt="%.1f", fontsize=6, padding=1)
    axis.set_xticks(range(len(cells)), cells, fontsize=8)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_ylabel("times as good as llama.cpp")
    axis.set_title(model, loc="left")
    axis.legend(ncols=5, fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a report of bench_peers.py.")
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path, help="without suffix")
    options = parser.parse_args()
    figure = draw(json.loads(options.report.read_text()))
    figure.savefig(options.out.with_suffix(".png"), dpi=150)
    figure.savefig(options.out.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
