"""Plots, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.long_thread import Series
from benchmarks.servers import Missing, imported

SMOOTHED_TURNS: Final = 9
"""A turn is drawn as the median of so many around it: one that met a busy machine says nothing."""


def pyplot() -> Any:
    """The library, told not to look for a screen; None where it is not installed."""
    try:
        library = imported("matplotlib")
    except Missing:
        return None
    library.use("svg")
    # The same numbers make the same file: no date in it, and no names by chance.
    library.rcParams["svg.hashsalt"] = "checkpoint-router"
    return imported("matplotlib.pyplot")


def draw(series: Mapping[str, Series], path: Path) -> Path | None:
    """Time of a turn, and bytes stored, over the turns of a conversation, by saver."""
    library = pyplot()
    if library is None:
        return None
    figure, axes = library.subplots(1, 2, figsize=(12, 5))
    for index, (name, each) in enumerate(sorted(series.items())):
        line: dict[str, Any] = {"label": name, "color": f"C{index % 10}"}
        line["linestyle"] = "-" if name.startswith("router") else "--"
        times = smoothed(each.turn_ms)
        axes[0].plot(range(1, len(times) + 1), times, **line)
        if each.stored:
            megabytes = [size / 1e6 for size in each.stored.values()]
            # One that was only measured at its end is a point.
            marker = "o" if len(megabytes) == 1 else ""
            axes[1].plot(list(each.stored), megabytes, marker=marker, **line)
    axes[0].set(xlabel="turns", ylabel="ms a turn", ylim=(0, None), title="Time of a turn")
    axes[1].set(xlabel="turns", ylabel="MB", yscale="log", title="Bytes stored")
    axes[0].legend(fontsize="small")
    return saved(figure, path)


def saved(figure: Any, path: Path) -> Path:
    """As SVG."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    return path


def smoothed(values: Sequence[float]) -> list[float]:
    """Each with the median of its neighbourhood."""
    half = SMOOTHED_TURNS // 2
    around = (sorted(values[max(0, i - half) : i + half + 1]) for i in range(len(values)))
    return [near[len(near) // 2] for near in around]
