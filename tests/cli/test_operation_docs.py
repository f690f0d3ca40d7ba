"""docs/operation.md names what there is: every option, every metric, every log field."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from quintet.cli.app import app
from quintet.server.health import HealthMonitor, HealthState
from quintet.server.http_stats import HTTPStats
from quintet.server.keys import ALL_SCOPES
from quintet.server.metrics import Metrics
from quintet.server.models import Models

TEXT = (Path(__file__).parents[2] / "docs" / "operation.md").read_text(encoding="utf-8")


def test_every_option_is_documented_and_none_that_is_not_there():
    """By its name on the command line."""
    command = typer.main.get_command(app).commands["serve"]
    options = {name for option in command.params for name in option.opts if name[:2] == "--"}
    options.discard("--help")
    assert options <= set(re.findall(r"--[a-z][a-z-]+", TEXT))
    table = TEXT[TEXT.index("| option |") : TEXT.index("Each model has")]
    named = {name for row in table.splitlines() for name in re.findall(r"`(--[a-z-]+)`", row)}
    assert named == options


def test_every_metric_is_documented_and_none_that_is_not_there():
    """By its name, histograms without their endings."""
    models = Models.of({})
    text = Metrics("quintet", models, HealthMonitor(models, 60.0), HTTPStats()).text().decode()
    there = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    named = set(re.findall(r"`((?:quintet_|llamacpp:|process_)[a-z0-9_]+)`", TEXT))
    assert named == there


def test_states_and_scopes_are_documented():
    """The words that probes and key files use."""
    for word in [*(state.value for state in HealthState), *ALL_SCOPES]:
        assert f"`{word}`" in TEXT
