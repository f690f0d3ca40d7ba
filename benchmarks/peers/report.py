"""The result for people: a Markdown table, on the terminal and in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peers.runner import ENGINES


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    machine = report["machine"]
    rounds = report["num_rounds"]
    lines = [
        f"{machine['cpu']} ({report['cpu_identity']}), {report['num_threads']} threads, "
        f"{machine['system']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB; {report['date']}; "
        f"medians of {rounds} alternating round{'s' * (rounds != 1)}.",
        "",
        *(f"- {name}: {text}" for name, text in _engines(report)),
        "",
        "Ratio: Quintet / llama.cpp, the median of the rounds' own ratios; above 1 is faster, but "
        "for `load` and `memory`, where below 1 is better. "
        "Of read, of int8: the share of the read bandwidth and of the int8 peak, measured between "
        "the rounds, that the step's weights (as the file has them) and 16-bit KV cache, or its "
        "matrix products, come to; Quintet first. "
        "Marked †: another process, the host, or the engine whose turn it was not used more than "
        "a tenth of a core.",
    ]
    for model in report["results"]:
        lines += ["", f"### {model['model']} {model['format']}", ""]
        lines += _table(model)
    return "\n".join(lines) + "\n"


def update_document(path: Path, report: dict[str, Any], images: Path) -> None:
    """Put the report between the document's two marks for the kernels that Quintet ran.

    Args:
        images: the plot without its suffix, relative to the document.

    Raises:
        ValueError: the document has no such marks.
    """
    text = path.read_text()
    kernels = report["kernels"].get("quintet", "none")
    marks = [f"<!-- bench-peers {kernels}: {place} -->" for place in ("begin", "end")]
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{path}: expected the marks {' and '.join(marks)}")
    plot = f"![Quintet against llama.cpp]({images}.svg)"
    path.write_text(f"{before}{begin}\n\n{markdown(report)}\n{plot}\n\n{end}{after}")


def _engines(report: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name in ENGINES:
        yield name, f"{report['versions'].get(name, '?')}; {report['kernels'].get(name, '?')}"
    yield "llama.cpp built with", report["peer_flags"]


def _table(model: dict[str, Any]) -> list[str]:
    if "error" in model:
        return [f"Not measured: {model['error']}"]
    lines = [
        "| cell | unit | Quintet | llama.cpp | ratio | GB/s | of read | int8 TMAC/s | of int8 |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in model["cells"]:
        ratio = "" if result["ratio"] is None else f"**{result['ratio']:.2f}**"
        machine = result["machine"]
        reads = _fractions(result, "of_read_bandwidth")
        macs = _fractions(result, "of_int8_peak")
        cells = [
            result["cell"],
            result["unit"],
            *(_value(result[engine]) for engine in ENGINES),
            ratio,
            f"{machine['read_bytes_per_s'] / 1e9:.1f}" if reads else "",
            reads,
            f"{machine['int8_macs_per_s'] / 1e12:.2f}" if macs else "",
            macs,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _value(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "failed"
    value = figure["value"]
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}{' †' if figure['disturbed'] else ''}"


def _fractions(result: dict[str, Any], key: str) -> str:
    shares = [result[engine][key] for engine in ENGINES if result[engine] is not None]
    return " / ".join(f"{share:.0%}" for share in shares if share is not None)
