"""Makes docs/metrics.md from the tables of llmgym/report/metrics.py and llmgym/report/metric_names.py.

python -m tools.metrics_page [--check]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llmgym.report.metric_names import TRL, VERL, Alias
from llmgym.report.metrics import ENDS, EVALUATED, EVERY, FROM_DATA, PLAYED, TABLE, Metric

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
GROUPS = {EVERY: "all", PLAYED: "those that play", FROM_DATA: "those that learn from data"}
TEXT = """# Metrics

Every training step adds a line of these to `metrics.jsonl`. Of several updates in a step, a metric of the update is the
mean. What there is nothing to average over, such as the length of replies that were cut off where none was, is left out
of the line; a number that is not finite is null. Nothing is averaged over padding. A failed episode is one whose
environment failed: it has no score, so rewards are without it; lengths and turns are told of all episodes, and under
`/effective` without those that failed.

The mean of values has their name; `/min`, `/p10`, `/p90` and `/max` after it are their least, their 10th and 90th
percentile, and their largest. The algorithms that play are {played}. An algorithm of
your own may measure more.

{table}

Trackers are told of held-out evaluations too, at the step that they come after:

{evaluated}

## Names of other libraries

`--metric-names trl` and `--metric-names verl` give metrics the names of TRL and verl in [trackers](trackers.md), where
the number means the same. A metric without such a name keeps ours. `metrics.jsonl` always has ours.

### TRL

{trl}

### verl

{verl}

<!-- python -m tools.metrics_page wrote this page from llmgym/report/metrics.py and llmgym/report/metric_names.py. -->
"""


def page() -> str:
    """Return the text of the page."""
    names = [f"`{name}`" for name in PLAYED]
    return TEXT.format(
        played=f"{', '.join(names[:-1])} and {names[-1]}",
        table=_table(TABLE),
        evaluated=_table(EVALUATED),
        trl=_aliases(TRL),
        verl=_aliases(VERL),
    )


def _table(metrics: Sequence[Metric]) -> str:
    rows = ["| metric | unit | meaning | algorithms | if |", "|---|---|---|---|---|"]
    names = {one.name for one in metrics}
    for one in metrics:
        if _base(one.name) in names:
            continue
        ends = "".join(f", `/{end}`" for end in ENDS if f"{one.name}/{end}" in names)
        agents = GROUPS.get(one.agents) or ", ".join(f"`{name}`" for name in one.agents)
        rows.append(f"| `{one.name}`{ends} | {one.unit} | {one.meaning} | {agents} | {one.when} |")
    return "\n".join(rows)


def _base(name: str) -> str:
    """Return the name of the mean, if a name is that of another end of the same values; else nothing."""
    base, _, end = name.rpartition("/")
    return base if end in ENDS else ""


def _aliases(aliases: Sequence[Alias]) -> str:
    rows = ["| name | made of | |", "|---|---|---|"]
    for one in aliases:
        rows.append(f"| `{one.theirs}` | {', '.join(f'`{name}`' for name in one.ours)} | {one.note} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say that it is out of date; returns the exit code, 1 if it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if the page is out of date")
    check = parser.parse_args(arguments).check
    text = page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    print(f"docs/metrics.md: {'out of date; run python -m tools.metrics_page' if check else 'written'}")
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
