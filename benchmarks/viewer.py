"""How fast the pages of a large run are, in a real browser.

    python -m benchmarks.viewer --run runs/grpo-... --directory /tmp/large

Makes a run of many synthetic episodes out of the real ones of a run, and written as a run writes them: seeds, groups,
scores, parts, replies and tokens vary. Then it starts ``llmgym view``, opens its pages in headless Chromium, and
prints the time from asking for each until it is shown. Chromium: see `tools.browser.INSTALL`.
"""

import argparse
import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.rollout.trajectory import Trajectory
from tools.browser import browser, wait

GROUP, PER_STEP = 8, 128
FIRST_PAGE, ANY_PAGE = 1000, 200
"""Milliseconds that are promised."""


def make_run(source: Path, directory: Path, count: int) -> None:
    """Write a run of `count` episodes, unless it is there already."""
    steps = -(-count // PER_STEP)
    if (directory / "metrics.jsonl").exists() and len(list(directory.glob("trajectories/*.parquet"))) == steps:
        return
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "trajectories").mkdir(parents=True)
    shutil.copy(source / "config.yaml", directory)
    real = [one for shard in sorted(source.glob("trajectories/*.parquet")) for one in read_trajectories(shard)]
    lines = [json.loads(line) for line in (source / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    random = np.random.default_rng(0)
    with (directory / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            size = min(PER_STEP, count - (step - 1) * PER_STEP)
            episodes = [varied(real[random.integers(len(real))], place, step, random) for place in range(size)]
            write_trajectories(directory / "trajectories" / f"step-{step:05d}.parquet", episodes)
            file.write(json.dumps({**lines[step % len(lines)], "step": step, "reward": float(random.random())}) + "\n")


def varied(real: Trajectory, place: int, step: int, random: np.random.Generator) -> Trajectory:
    """Return an episode like a real one, with another seed, score, ending, numbers in its text, and probabilities."""
    group = place // GROUP
    score = float(np.round(random.random(), 3))
    number = str(random.integers(10**6))
    messages = [
        dataclasses.replace(
            message, content=re.sub(r"\d+", lambda _: str(random.integers(100)), message.content, count=9)
        )
        for message in real.messages
    ]
    messages[-1] = dataclasses.replace(messages[-1], content=f"{messages[-1].content} {number}")
    ending = ("terminated", "truncated", "max_tokens")[random.choice(3, p=[0.9, 0.07, 0.03])]
    log_probs = [float(random.exponential() * -0.3) if own else 0.0 for own in real.mask]
    parts = {**real.parts, "success": float(score > 0.6), "luck": float(random.random())}
    return dataclasses.replace(
        real,
        seed=step * 1000 + group,
        group=group,
        score=score,
        ending=ending,
        messages=messages,
        log_probs=log_probs,
        parts=parts,
    )


@contextmanager
def viewing(*runs: Path) -> Iterator[tuple[str, float]]:
    """Start ``llmgym view``; yield its address, and when it was started."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "llmgym", "view", *map(str, runs), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(word for word in process.stdout.readline().split() if word.startswith("http")), started
        finally:
            process.send_signal(2)


def shown(driver: Any, address: str, what: str = "shown") -> float:
    """Return the milliseconds from going to an address until its page has made a mark."""
    driver.execute_script(
        "performance.clearMarks(); performance.mark('asked'); location.hash = arguments[0]",
        address + f"&at={time.time()}",
    )
    wait(driver, f"performance.getEntriesByName('{what}').length", 120)
    return float(
        driver.execute_script(
            "const at = (name) => performance.getEntriesByName(name)[0].startTime;"
            "return at(arguments[0]) - at('asked')",
            what,
        )
    )


def pages(count: int, text: str) -> dict[str, str]:
    """Return the addresses of pages, by what they are."""
    middle = count // PER_STEP // 2
    return {
        "curves": "#/curves?",
        "episodes, all": "#/episodes?",
        "episodes, the last page": f"#/episodes?from={count - 50}",
        "episodes, by score": "#/episodes?sort=-score",
        "episodes, one step's failures": f"#/episodes?step={middle}&outcome=failure",
        "episodes, all filters": "#/episodes?outcome=success&ending=truncated&low=0.7&high=0.9&shortest=40&sort=length",
        "episodes, one seed": f"#/episodes?task={middle * 1000 + 3}",
        f"episodes that say {text!r} (found everywhere)": f"#/episodes?text={text}",
        "a group": f"#/group?step={middle}&index=17",
        "an episode": f"#/episode?step={middle}&index=17&colour=push",
        "an episode, every token": f"#/episode?step={middle}&index=18&all=1",
    }


def measure(run: Path, count: int, repeats: int) -> list[tuple[str, float, float | None]]:
    """Return what was measured: of what, the milliseconds, and those that are promised."""
    steps = -(-count // PER_STEP)
    found: list[tuple[str, float, float | None]] = []
    with browser() as driver:
        driver.get("about:blank")
        with viewing(run) as (address, started):
            found.append(("llmgym view prints its address", 1000 * (time.perf_counter() - started), None))
            driver.get(address)
            wait(driver, "performance.getEntriesByName('shown').length")
            found.append(("first page, right after the start", first_page(driver), FIRST_PAGE))
            wait(driver, f"document.getElementById('state').textContent.startsWith('up to date: {steps} ')", 60)
            found.append(("start until all episodes are read", 1000 * (time.perf_counter() - started), None))
            for what, place in {"first page": "", "first page, the table": "#/episodes"}.items():
                driver.get("about:blank")
                driver.get(address + place)
                wait(driver, "performance.getEntriesByName('shown').length")
                found.append((what, first_page(driver), FIRST_PAGE))
            for what, place in pages(count, "database").items():
                mark = "filled" if "text=" in place else "shown"
                times = [shown(driver, place, mark) for _ in range(repeats)]
                found.append((what, statistics.median(times), ANY_PAGE))
            replied = shown(driver, "#/episodes?step=3", "replied")
            found.append(("the last replies in a table's lines, which come after it", replied, ANY_PAGE))
            searched = shown(driver, "#/episodes?text=nobody+says+this", "filled")
            found.append(("a text that nobody says, until all replies are searched", searched, None))
        found += compared(driver, run, repeats)
    return found


def compared(driver: Any, run: Path, repeats: int) -> list[tuple[str, float, float | None]]:
    """Measure the pages of two runs: the same one, by two names."""
    again = run.with_name(f"{run.name}-again")
    again.unlink(missing_ok=True)
    again.symlink_to(run.absolute())
    with viewing(run, again) as (address, _):
        driver.get(address)
        steps = len(list(run.glob("trajectories/*.parquet")))
        wait(driver, f"document.getElementById('state').textContent === 'up to date: {steps} and {steps} steps'", 60)
        places = {
            "two runs, tasks of both": "#/compare?",
            "two runs, an episode of each": f"#/pair?step={steps // 2}&index=5",
        }
        times = {what: [shown(driver, place) for _ in range(repeats)] for what, place in places.items()}
    again.unlink()
    return [(what, statistics.median(those), ANY_PAGE) for what, those in times.items()]


def first_page(driver: Any) -> float:
    """Return the milliseconds from the start of loading until the page was shown."""
    return float(driver.execute_script("return performance.getEntriesByName('shown')[0].startTime"))


def table(found: Sequence[tuple[str, float, float | None]]) -> str:
    """Return what was measured as Markdown."""
    lines = [f"| {what} | {got:,.0f} | {'' if most is None else f'{most:,.0f}'} |" for what, got, most in found]
    return "\n".join(["| page | measured, ms | promised, ms |", "|---|---:|---:|", *lines])


def main() -> int:
    """Measure; returns 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a real run, whose episodes are varied")
    parser.add_argument("--directory", type=Path, required=True, help="where the large run is, or is made")
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    make_run(options.run, options.directory, options.episodes)
    found = measure(options.directory, options.episodes, options.repeats)
    size = sum(file.stat().st_size for file in options.directory.glob("trajectories/*"))
    print(f"{options.episodes:,} episodes in files of {PER_STEP}, {size / 2**20:.0f} MiB\n\n{table(found)}")
    return int(any(most is not None and got > most for _, got, most in found))


if __name__ == "__main__":
    sys.exit(main())
