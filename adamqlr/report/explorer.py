"""The explorer: a figure of Plotly's whose dataset, metric and axis the reader chooses, offline."""

import base64
import gzip
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from adamqlr.report.curves import AXES, curves_of
from adamqlr.results.study import Pair, Study, by_dataset
from adamqlr.study.optimizers import OPTIMIZERS, OptimizerSpec
from adamqlr.training.metrics import METRICS

# How many numbers a page carries, some four bytes each, and how many of one dataset in one suite.
_ALL_NUMBERS, _OF_DATASET = 4_000_000, 400_000
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_BAND_OPACITY = 0.15
# Plotly's other buttons are of no use here, or send data to a service.
_BUTTONS = ["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
_SETTINGS = {"displaylogo": False, "responsive": True, "modeBarButtons": _BUTTONS}


class Explorer(NamedTuple):
    """What the page holds of the explorer.

    Attributes:
        choices: What there is to choose from, and how it is drawn.
        blocks: Compressed texts by name: Plotly's code, and the curves of each dataset in each suite.
    """

    choices: dict[str, Any]
    blocks: dict[str, str]


def explore(study: Study) -> Explorer:
    """Return the explorer of a study's suites."""
    groups = {
        (suite, dataset): pairs
        for suite in study.config.suites
        for dataset, pairs in by_dataset(study.pairs(suite)).items()
    }
    numbers = min(_OF_DATASET, _ALL_NUMBERS // max(len(groups), 1))
    blocks = {"plotly": _compressed(get_plotlyjs())}
    suites: dict[str, dict[str, Any]] = {suite: {} for suite in study.config.suites}
    for number, ((suite, dataset), pairs) in enumerate(groups.items()):
        curves = curves_of(pairs, study.resampling, numbers)
        name = f"curves-{number}"
        blocks[name] = _compressed(json.dumps(curves, separators=(",", ":"), ensure_ascii=False))
        suites[suite][dataset] = {
            "label": pairs[0].dataset_label,
            "block": name,
            "metrics": {metric: _title(METRICS[metric].long_name) for metric in curves["heights"]},
        }
    traces = _traces(study, groups.values())
    choices = {"suites": suites, "axes": AXES, "traces": traces, "layout": _layout(), "settings": _SETTINGS}
    return Explorer(choices, blocks)


def _traces(study: Study, groups: Iterable[list[Pair]]) -> dict[str, dict[str, Any]]:
    """Return how each optimizer's median, band and runs are drawn, in the order of legends."""
    specs = {pair.optimizer: (pair.spec, pair.optimizer_label) for pairs in groups for pair in pairs}
    order = dict.fromkeys([*OPTIMIZERS, *study.config.optimizers, *specs])
    return {
        key: {
            "label": label,
            "color": spec.color,
            "dash": _DASHES[spec.line],
            "median": _median(spec, label),
            "band": _band(spec),
            "run": _run(spec, label),
        }
        for key in order
        if key in specs
        for spec, label in [specs[key]]
    }


def _median(spec: OptimizerSpec, label: str) -> Any:
    hover = (
        f"<b>{label}</b>, median %{{y:.4g}}<br>95 %: %{{customdata[0]:.4g}} to %{{customdata[1]:.4g}}<br>at %{{x:.4g}}"
        "<br>%{meta}<extra></extra>"
    )
    line = {"color": spec.color, "dash": _DASHES[spec.line], "width": 2}
    return go.Scatter(mode="lines", name=label, line=line, hovertemplate=hover).to_plotly_json()


def _band(spec: OptimizerSpec) -> Any:
    red, green, blue = (int(spec.color[start : start + 2], 16) for start in (1, 3, 5))
    color = f"rgba({red},{green},{blue},{_BAND_OPACITY})"
    return go.Scatter(
        mode="lines", line={"width": 0}, fill="toself", fillcolor=color, hoverinfo="skip"
    ).to_plotly_json()


def _run(spec: OptimizerSpec, label: str) -> Any:
    hover = f"<b>{label}</b>, seed %{{customdata}}<br>%{{y:.4g}} at %{{x:.4g}}<br>%{{meta}}<extra></extra>"
    line = {"color": spec.color, "dash": _DASHES[spec.line], "width": 1}
    return go.Scatter(
        mode="lines", name=label, line=line, opacity=0.7, connectgaps=False, hovertemplate=hover
    ).to_plotly_json()


def _layout() -> Any:
    axis = {"showline": True, "ticks": "outside", "exponentformat": "power", "zeroline": False, "automargin": True}
    return go.Layout(
        template="none",
        autosize=True,
        showlegend=False,
        hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#5b6570", "activecolor": "#0b5cad"},
        margin={"l": 64, "r": 16, "t": 16, "b": 56},
        xaxis=axis,
        yaxis=axis,
    ).to_plotly_json()


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _compressed(text: str) -> str:
    # No time of writing: equal studies give equal pages.
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
