"""A report as a picture: each figure that has a target, in parts of it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Figure, Report, Sense

MET, MISSED, SIMILAR = "#2a7f62", "#c0392b", "#7f8c8d"

#: A bar ends here however far its target is missed.
LONGEST = 4.0


def draw(report: Report, path: Path) -> None:
    """Write the plot in the format that the suffix of `path` names, PNG or SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same report gives the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text as text: a tenth of the size, and it can be searched
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figures = [figure for figure in report.figures if figure.target.limit]
    height = 1.2 + 0.28 * len(figures)
    drawing, axes = plt.subplots(figsize=(10, height), layout="constrained")
    for place, figure in enumerate(figures):
        share = used_share(figure, figure.value)
        colour = MET if figure.is_met else MISSED
        axes.barh(place, min(share, LONGEST), color=colour, height=0.6)
        text = f"{figure.value:.3g} {figure.unit}" + (" →" if share > LONGEST else "")
        axes.text(min(share, LONGEST) + 0.03, place, text, va="center", fontsize=8)
        if figure.target.similar is not None:
            similar = used_share(figure, figure.target.similar)
            axes.plot(min(similar, LONGEST), place, marker="d", color=SIMILAR)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(figures)), [f"{figure.group}: {figure.name}" for figure in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, LONGEST + 0.6)
    axes.set_xlabel(
        "part of the target that is used: left of the line is met; diamond: best of four similar agents"
    )
    axes.set_title(f"{report.commit}, {report.began_at[:10]}, {report.machine.cpu}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else {})
    plt.close(drawing)


def used_share(figure: Figure, value: float) -> float:
    """How much of its target a value uses: 1 is just met, whichever side is good.

    Of a ratio to the direct client only what is above 1 is the agent's, so 1.05 uses half of 1.10.
    """
    limit = figure.target.limit or 0.0
    if figure.target.sense is Sense.AT_LEAST:
        return limit / value if value > 0 else LONGEST * 2
    if figure.unit == "x" and figure.direct is not None and limit > 1:
        return max(0.0, value - 1) / (limit - 1)
    return max(0.0, value / limit)
