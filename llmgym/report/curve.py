"""The learning curve as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmgym.evaluate import Evaluation
from llmgym.files import whole_or_absent
from llmgym.visible import visible

_ABOVE = {"success": "#2f6f9f", "reward": "#c0602f", "accuracy": "#7f7f2f"}
_BELOW = {"entropy": ("entropy", "#4f8a4f"), "kl": ("KL from the reference", "#8a5f9f"), "loss": ("loss", "#5f5f5f")}


def draw_learning_curve(
    path: Path, title: str, metrics: Sequence[Mapping[str, float]], evaluations: Mapping[str, Evaluation]
) -> None:
    """Draw success and reward over the steps, with the held-out evaluations, and entropy, KL and loss below.

    Args:
        path: The PNG to write.
        title: What was trained on what.
        metrics: One mapping per step.
        evaluations: In the order of their steps; may be empty.
    """
    steps = [m["step"] for m in metrics]
    figure = Figure(figsize=(8, 5.5))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.94, bottom=0.09, hspace=0.07)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name, colour in _ABOVE.items():
        values = [m.get(name, math.nan) for m in metrics]
        if all(map(math.isnan, values)):
            continue
        top.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        top.plot(steps, _smoothed(values), color=colour, linewidth=2, label=f"{name}, training")
    judged = [one for one in evaluations.values() if one.step is not None]
    if judged:
        x, success = [one.step for one in judged], [one.success for one in judged]
        low, high = (
            [one.success - one.success_low for one in judged],
            [one.success_high - one.success for one in judged],
        )
        label = _as_text(f"{judged[0].measure}, held out, 95 %")
        top.errorbar(x, success, [low, high], fmt="o", color="black", capsize=4, zorder=3, label=label)
    for one in (judged[0], judged[-1]) if len(judged) > 1 else judged:
        at = one.step, one.success_high
        top.annotate(f"{one.success:.2f}", at, (0, 6), textcoords="offset points", ha="center")
    top.set(title=_as_text(title), ylim=(0, 1.08), ylabel="share, reward")
    if top.get_legend_handles_labels()[0]:
        top.legend(loc="best", frameon=True, framealpha=0.8, edgecolor="none")
    for name, (label, colour) in _BELOW.items():
        if any(name in m for m in metrics):
            bottom.plot(steps, [m.get(name, math.nan) for m in metrics], color=colour, label=label)
    bottom.set(xlabel="step", ylabel="nats", ylim=(0, None))
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    if bottom.get_legend_handles_labels()[0]:
        bottom.legend(loc="best", frameon=True, framealpha=0.8, edgecolor="none", ncols=2)
    for axes in (top, bottom):
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    with whole_or_absent(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _as_text(text: str) -> str:
    """Return a text as matplotlib shows it, which takes what is between dollar signs for a formula."""
    return visible(text).replace("$", r"\$")


def _smoothed(values: Sequence[float], weight: float = 0.6) -> list[float]:
    """An exponential moving average, corrected for its start."""
    smooth: list[float] = []
    total = mass = 0.0
    for value in values:
        if math.isnan(value):  # a step without a score adds nothing
            smooth.append(smooth[-1] if smooth else value)
            continue
        total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
        smooth.append(total / mass)
    return smooth
