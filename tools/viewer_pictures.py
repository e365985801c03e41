"""The pictures of docs/viewer.md: pages of real runs in a real browser.

    python -m tools.viewer_pictures RUN RUN

The second run has the tasks of the first, as one with the same seed has. Of the first one's step `--step`, the group is
shown in which fewest succeeded, but not none, and its success; of both, the task on which they differ most.
"""

import argparse
import io
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from llmgym.view import Answers, Run, open_runs, serve
from tools.browser import browser, go

PICTURES = Path(__file__).parent.parent / "docs" / "viewer"


def telling(run: Run, step: int) -> int:
    """Return the index of a success in whose group fewest succeeded."""
    episodes = run.index.episodes
    right = np.flatnonzero((episodes.step == step) & (episodes.success == 1))
    fewest = min(right, key=lambda at: episodes.success[episodes.siblings(at)].sum())
    return int(episodes.index[fewest])


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("--step", type=int, default=20)
    options = parser.parse_args()
    runs = open_runs(options.runs)
    for run in runs:
        run.refresh()
    first, second = (run.label for run in runs)
    episode = f"run={first}&step={options.step}&index={telling(runs[0], options.step)}"
    most, against = Answers(runs).answer("tasks", {"run": first, "other": second})["rows"][0]["sides"]
    pages = {
        "curves": ("curves", 980),
        "failures": (f"episodes?run={first}&step={options.step}&outcome=failure", 1540),
        "group": (f"group?{episode}", 870),
        "episode": (f"episode?{episode}&colour=push", 1270),
        "compare": (
            f"pair?run={first}&step={most['step']}&index={most['index']}&other={second}&oindex={against['index']}",
            1130,
        ),
    }
    with serve(runs, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, (page, height) in {**pages, "dark": pages["episode"]}.items():
            with browser(width=1300, height=height, dark=name == "dark") as driver:
                go(driver, f"{server.address}#/{page}")
                time.sleep(0.5)  # the last replies come after the table
                picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
                picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE)  # a third of the size
                picture.save(PICTURES / f"{name}.png", optimize=True)
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
