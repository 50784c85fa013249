"""The tables that are printed, in Markdown, and the file with every number."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from adamqlr.files import replacing

from .cases import BASELINE, CAPTURED, EAGER, JAX, MEASURED, label
from .peers.process import versions
from .rows import BATCH, KFAC_PARTS, LIMITS, PACKS, PARAMETERS, PEERS, STEPS

NETWORK = "network and batch"


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write all measurements, a row each."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.5g")


def tables(frame: pd.DataFrame) -> list[str]:
    """Return a title and a table for each thing that was measured."""
    return [
        text
        for section in (_ratios, _capture, _memory, _packs, _limits, _growth, _kfac_parts, peers_table)
        for text in section(frame)
    ]


def number(value: Any) -> str:
    """Return three significant digits."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def spread(median: float, iqr: float) -> str:
    """Return a median with half its interquartile range, to the digits that matter beside it."""
    decimals = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:.{decimals}f} ± {iqr / 2:.{decimals}f}"


def _markdown(title: str, rows: list[dict[str, str]]) -> list[str]:
    return [f"## {title}", pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)]


def _cases(frame: pd.DataFrame, section: str, mode: str | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Return each network and batch of a section, and its measurements by optimizer."""
    chosen = frame[frame["section"] == section]
    if mode is not None:
        chosen = chosen[chosen["mode"] == mode]
    groups = chosen.groupby(["network", "batch"], sort=False)
    return [(f"{network}, {batch}", group.set_index("optimizer")) for (network, batch), group in groups]


def _ratios(frame: pd.DataFrame) -> list[str]:
    rows = []
    for case, of in _cases(frame, STEPS, EAGER):
        adam = of.loc[BASELINE]
        row = {NETWORK: case, f"{label(BASELINE)} (ms)": number(adam["milliseconds"])}
        rows.append(row | {label(key): spread(*of.loc[key, ["ratio", "ratio_iqr"]]) for key in MEASURED})
    title = "Step time in steps of PyTorch's fused Adam (median over blocks ± half the interquartile range)"
    return _markdown(title, rows)


def _capture(frame: pd.DataFrame) -> list[str]:
    captured = dict(_cases(frame, STEPS, CAPTURED))
    title = "Eager and captured steps (ms)"
    rows = []
    for case, of in _cases(frame, STEPS, EAGER):
        if case not in captured:
            continue
        row = {NETWORK: case, label(BASELINE): number(of.loc[BASELINE, "milliseconds"])}
        for key in MEASURED:
            times = (number(by.loc[key, "milliseconds"]) for by in (of, captured[case]))
            row[label(key)] = " → ".join(times)
        rows.append(row)
    return _markdown(title, rows)


def _memory(frame: pd.DataFrame) -> list[str]:
    rows = [
        {NETWORK: case} | {label(key): number(of.loc[key, "peak_mib"]) for key in (BASELINE, *MEASURED)}
        for case, of in _cases(frame, STEPS, EAGER)
    ]
    return _markdown(
        "Peak memory of a step: parameters, optimizer and activations, as allocated by PyTorch (MiB)", rows
    )


def _packs(frame: pd.DataFrame) -> list[str]:
    rows = []
    chosen = frame[frame["section"] == PACKS]
    for (network, batch, optimizer), of in chosen.groupby(["network", "batch", "optimizer"], sort=False):
        solo = of["seed_steps_per_second"].iloc[0]
        row = {NETWORK: f"{network}, {batch}", "optimizer": label(str(optimizer)), "solo": number(solo)}
        for members, rate in zip(of["members"].iloc[1:], of["seed_steps_per_second"].iloc[1:], strict=True):
            row[f"pack of {members}"] = f"{number(rate)} ({rate / solo:.2f} ×)"
        rows.append(row)
    return _markdown(f"Seeds · steps a second, solo and packed ({chosen['mode'].iloc[0]})", rows)


def _limits(frame: pd.DataFrame) -> list[str]:
    rows = []
    for _, of in frame[frame["section"] == LIMITS].iterrows():
        name = of["network"] if pd.isna(of["batch"]) else f"{of['network']}, {of['batch']}: {label(of['optimizer'])}"
        rows.append(
            {
                "": f"{name} ({of['mode']})" if of["mode"] == CAPTURED else name,
                "ms": number(of["milliseconds"]),
                "GFLOP": number(of["gflop"]),
                "GFLOP/s": number(1e3 * of["gflop"] / of["milliseconds"]),
                "of the matrix product": f"{of['matmul_fraction']:.0%}",
                "GB": number(of["gbyte"]),
                "GB/s": number(1e3 * of["gbyte"] / of["milliseconds"]),
                "of the copy": f"{of['memory_fraction']:.0%}",
            }
        )
    return _markdown("The device's measured limits, and how much of them a step reaches", rows)


def _growth(frame: pd.DataFrame) -> list[str]:
    texts = []
    for section, column in ((BATCH, "batch"), (PARAMETERS, "parameters")):
        rows = []
        for _, of in _cases(frame, section):
            cells = {label(str(key)): _time_and_memory(row) for key, row in of.iterrows()}
            rows.append({section: f"{of[column].iloc[0]:,}", "network": of["network"].iloc[0]} | cells)
        texts += _markdown(f"Step time in ms by {section} (in brackets peak memory in MiB)", rows)
    return texts


def _time_and_memory(row: pd.Series) -> str:
    time = number(row["milliseconds"])
    return time if pd.isna(row["peak_mib"]) else f"{time} ({number(row['peak_mib'])})"


def _kfac_parts(frame: pd.DataFrame) -> list[str]:
    (case, of), *_ = _cases(frame, KFAC_PARTS)
    rows = [
        {
            "part": str(part),
            "ms": spread(row["milliseconds"], row["milliseconds_iqr"]),
            "of the step": f"{row['ratio']:.0%}",
        }
        for part, row in of.iterrows()
    ]
    return _markdown(f"Where a step of K-FAC spends its time ({case})", rows)


def peers_table(frame: pd.DataFrame) -> list[str]:
    """Return title and table of the comparison with JAX, or nothing where it was not made."""
    theirs, eager = ({case: dict(by.iterrows()) for case, by in _cases(frame, PEERS, mode)} for mode in (JAX, EAGER))
    rows = [
        {
            NETWORK: case,
            "optimizer": label(str(key)),
            "by JAX (ms)": _time(theirs[case][key]),
            "here, eager (ms)": _time(eager[case][key]),
            "here, captured (ms)": _time(row),
            "captured / JAX": spread(row["ratio"], row["ratio_iqr"]),
        }
        for case, of in _cases(frame, PEERS, CAPTURED)
        for key, row in of.iterrows()
    ]
    title = f"Step time beside {versions()}, on one thread (medians over blocks ± half the interquartile range)"
    return _markdown(title, rows) if rows else []


def _time(row: pd.Series) -> str:
    """Return milliseconds to three digits, with half their interquartile range."""
    median, iqr = row["milliseconds"], row["milliseconds_iqr"]
    decimals = max(0, 2 - math.floor(math.log10(median)))
    return f"{median:.{decimals}f} ± {iqr / 2:.{decimals}f}"
