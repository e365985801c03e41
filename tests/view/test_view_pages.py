"""Pages in a real browser: what is seen, filtered, followed by keys, and stays text."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "selenium", reason="needs a browser: apt-get install -y chromium chromium-driver && pip install selenium"
)

from llmgym.cli import main
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.types import Message
from llmgym.view import open_runs, serve
from llmgym.view.server import Server
from tests.view.conftest import episode
from tools.browser import INSTALL, browser, go, is_installed, wait

pytestmark = pytest.mark.skipif(not is_installed(), reason=f"needs a browser: {INSTALL}")

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as one:
        yield one
        assert not [
            line for line in one.get_log("browser") if line["level"] == "SEVERE" and "/api/" not in line["message"]
        ]


@pytest.fixture
def served() -> Iterator[Serve]:
    """Serves runs until the end of a test."""
    open_ones: list[Any] = []

    def start(*paths: Path, host: str = "127.0.0.1") -> Server:
        runs = open_runs(paths)
        for run in runs:
            run.refresh()
        context = serve(runs, host, 0)
        server = context.__enter__()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        open_ones.append((context, server, thread))
        return server

    yield start
    for context, server, thread in open_ones:
        server.shutdown()
        thread.join()
        context.__exit__(None, None, None)


def text(driver: Any, selector: str = "main") -> str:
    return str(driver.execute_script("return document.querySelector(arguments[0]).innerText", selector))


def texts(driver: Any, selector: str) -> list[str]:
    return [
        str(one)
        for one in driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector
        )
    ]


def lines(driver: Any) -> list[str]:
    return texts(driver, "[data-line]")


def press(driver: Any, *keys: str) -> None:
    driver.execute_script(
        "for (const key of arguments[0]) (document.activeElement || document.body)"
        ".dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))",
        list(keys),
    )


def choose(driver: Any, name: str, value: str) -> None:
    driver.execute_script(
        "const field = document.querySelector(`[name=${arguments[0]}]`); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', { bubbles: true }))",
        name,
        value,
    )


def test_curves_show_every_metric_of_every_run(driver: Any, served: Serve, real_runs: list[Path]) -> None:
    server = served(*real_runs)
    go(driver, server.address)
    runs = open_runs(real_runs)
    for run in runs:
        run.refresh()
    names = {name for run in runs for step in run.metrics.steps for name in step} - {"step"}
    assert set(texts(driver, ".chart h3")) == names
    captions = dict(zip(texts(driver, ".chart h3"), texts(driver, ".chart .meaning"), strict=True))
    assert captions["success"].startswith("Successes, as the environment sees them")
    assert "round 2 is exactly one JSON object" in captions["part/json_ok"]
    assert driver.execute_script("return document.querySelectorAll('.chart .run-1 .line').length") > 0
    choose_metric = (
        "const find = document.getElementById('find'); find.value = 'KL'; find.dispatchEvent(new Event('input'))"
    )
    driver.execute_script(choose_metric)
    assert set(texts(driver, ".chart h3")) == {name for name in names if "kl" in name}
    assert "find=KL" in driver.current_url
    driver.execute_script("document.querySelector('.chart svg').focus()")
    press(driver, "ArrowRight", "ArrowRight")
    assert texts(driver, ".chart output")[0].startswith("step 2: ")
    press(driver, "Enter")
    wait(driver, "location.hash === '#/episodes?step=2'")


def test_the_table_is_filtered_and_leads_to_episodes_by_keys(driver: Any, served: Serve, real_runs: list[Path]) -> None:
    server = served(*real_runs)
    stored = [
        (int(shard.stem[-5:]), index, one)
        for shard in sorted(real_runs[0].glob("trajectories/*.parquet"))
        for index, one in enumerate(read_trajectories(shard))
    ]
    go(driver, f"{server.address}#/episodes")
    assert len(lines(driver)) == len(stored)
    choose(driver, "outcome", "failure")
    failures = [f"{step}.{index}" for step, index, one in stored if not one.succeeded]
    wait(driver, f"document.querySelectorAll('[data-line]').length === {len(failures)}")
    assert set(lines(driver)) == set(failures)
    choose(driver, "step", "1")
    wait(driver, f"document.querySelectorAll('[data-line]').length === {sum(name[0] == '1' for name in failures)}")
    failed, played = sum(name[0] == "1" for name in failures), sum(step == 1 for step, _, _ in stored)
    assert f"{failed} of {played} episodes of step 1 are failures" in text(driver)
    assert "Failures by task: seed" in text(driver)
    assert "outcome" not in texts(driver, "th")
    first, second = lines(driver)[:2]
    press(driver, "j", "j")
    assert driver.execute_script("return document.activeElement.textContent") == second
    press(driver, "k")
    driver.execute_script("document.activeElement.click()")
    wait(driver, f"document.querySelector('h1').textContent.includes('Episode {first}')")
    press(driver, "g")
    wait(driver, "document.querySelector('h1').textContent.startsWith('Group of 4')")
    assert first in lines(driver)
    driver.back()
    wait(driver, f"document.querySelector('h1').textContent.includes('Episode {first}')")
    press(driver, "c")
    wait(driver, "document.querySelector('h1').textContent.startsWith('The same task in two runs')")


def test_an_episode_colours_its_tokens_by_what_is_known(driver: Any, served: Serve, real_runs: list[Path]) -> None:
    server = served(real_runs[0])
    link = f"{server.address}#/episode?run=fast&step=1&index={{}}&colour=advantage"
    disabled = "return [...document.querySelectorAll('input:disabled')].map((one) => one.value)"
    episodes = read_trajectories(real_runs[0] / "trajectories" / "step-00001.parquet")
    go(driver, link.format(len(episodes) - 1))
    assert driver.execute_script(disabled) == ["mismatch"], "the second update learns with other weights than sampled"
    assert "in the first update of a step" in text(driver, "fieldset")
    go(driver, link.format(2))
    assert driver.current_url == link.format(2), "a link stays what it is"
    one = episodes[2]
    assert driver.execute_script("return document.querySelectorAll('.token').length") == one.sampled_tokens
    assert driver.execute_script(disabled) == []
    for colour in ("entropy", "mismatch"):
        driver.execute_script(f"document.querySelector('input[value={colour}]').click()")
        shades = driver.execute_script(
            "return [...document.querySelectorAll('.token')].map((one) => one.style.background)"
        )
        assert len(set(shades)) > 2
    driver.execute_script("document.querySelector('input[value=mask]').click()")
    count = "return [document.querySelectorAll('.token').length, document.querySelectorAll('.token.other').length]"
    assert driver.execute_script(count) == [len(one.tokens), len(one.tokens) - one.sampled_tokens]
    shown = driver.execute_script("return document.querySelector('.turn .said').textContent")
    for message in one.messages:
        assert message.content.strip() in shown


def test_two_episodes_of_a_task_have_their_first_difference_marked(
    driver: Any, served: Serve, run_of: Callable[..., Path]
) -> None:
    server = served(
        run_of({1: [episode("it is fine")]}, "first"), run_of({1: [episode("it is broken", 0.0)]}, "second")
    )
    go(driver, f"{server.address}#/compare")
    assert lines(driver) == ["seed 7"]
    driver.execute_script("document.querySelector('[data-line]').click()")
    wait(driver, "document.querySelectorAll('mark').length === 2")
    assert texts(driver, "mark.first") == ["fine", "broken"]
    assert texts(driver, ".pair .alike") == ["it is ", "it is "]
    assert texts(driver, ".pair .said") == ["it is fine", "it is broken"], "nothing is put between their words"
    assert "Turn 1: the first difference, at the marked word" in texts(driver, "h2")
    assert "One of the 1 episodes of this task in the first run" in text(driver)


def test_two_answers_in_json_differ_in_the_keys_that_differ(
    driver: Any, served: Serve, run_of: Callable[..., Path]
) -> None:
    answers = ('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 3, "c": 4}')
    server = served(*(run_of({1: [episode(said)]}, name) for said, name in zip(answers, ("one", "two"), strict=True)))
    go(driver, f"{server.address}#/pair?run=one&step=1&index=0&other=two")
    assert "They first differ in turn 1, in b and c." in text(driver)


def test_a_group_has_one_box_for_episodes_that_are_alike(
    driver: Any, served: Serve, run_of: Callable[..., Path]
) -> None:
    server = served(run_of({1: [episode("no", 0.0), episode("yes"), episode("no", 0.0), episode("no", 0.5)]}))
    go(driver, f"{server.address}#/group?step=1&index=0")
    assert [box.split("score")[0] for box in texts(driver, ".group article")] == [
        "✗ failure, 2 times1.0 1.2 ",
        "✓ success1.1 ",
        "✗ failure1.3 ",
    ]
    assert lines(driver) == ["1.0", "1.2", "1.1", "1.3"]
    assert "Advantage = (reward − mean of its group) ÷ standard deviation of its group" in text(driver)


def test_an_episode_says_what_its_advantage_is_made_of(driver: Any, served: Serve, run_of: Callable[..., Path]) -> None:
    run = run_of({1: [episode("no", 0.0), episode("yes"), episode("no", 0.5)]})
    (run / "config.yaml").write_text("advantage: dr_grpo\n", encoding="utf-8")
    go(driver, f"{served(run).address}#/episode?step=1&index=1&colour=push")
    told = "Reward 1.000; mean of the 3 in its group 0.500; advantage +0.500 = reward − mean of its group"
    assert f"{told} (--advantage dr_grpo)." in text(driver)
    assert "−" not in text(driver, ".legend").replace("(1 − p)", ""), "there is no token with a negative push"


def test_a_long_message_is_cut_until_all_of_it_is_asked_for(
    driver: Any, served: Serve, run_of: Callable[..., Path]
) -> None:
    one = episode()
    one.messages[0] = Message("user", "\n".join(map(str, range(99))))
    go(driver, f"{served(run_of({1: [one]})).address}#/episode?step=1&index=0")
    height = "return document.querySelector('.turn .said').getBoundingClientRect().height"
    before = driver.execute_script(height)
    driver.execute_script("document.querySelector('.turn button').click()")
    assert driver.execute_script(height) > 5 * before


HOSTILE = "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'>\u202e</script>"


@pytest.fixture
def hostile(run_of: Callable[..., Path]) -> Path:
    one = episode(HOSTILE, 0.0)
    one.messages.insert(0, Message("tool", HOSTILE, name=HOSTILE))
    one.parts = {HOSTILE: 0.5}
    one.score_error = HOSTILE
    run = run_of({1: [one, one]}, "<b>run")
    (run / "config.yaml").write_text(f"advantage: group_std\nenv: {HOSTILE!r}\n", encoding="utf-8")
    (run / "metrics.jsonl").write_text('{"step": 1, "<img src=x onerror=alert(1)>": 2}\n[]\n', encoding="utf-8")
    return run


PAGES = (
    "curves?",
    "episodes?",
    "episode?step=1&index=0",
    "group?step=1&index=0",
    "compare?",
    "nothing?",
    "episode?run=<b>x",
)


def test_what_others_wrote_stays_text_on_every_page(driver: Any, served: Serve, hostile: Path, tmp_path: Path) -> None:
    assert main(["report", str(hostile), "-o", str(tmp_path / "report.html")]) == 0
    for place in (served(hostile).address, f"file://{tmp_path / 'report.html'}"):
        for page in PAGES:
            go(driver, f"{place}#/{page}")
            time.sleep(0.05)
            found = "return [window.owned || 0, document.querySelectorAll('main img, main script, main b').length]"
            assert driver.execute_script(found) == [0, 0]
        go(driver, f"{place}#/episode?step=1&index=0")
        assert texts(driver, ".turn.assistant .said")[0].startswith(HOSTILE.replace("\u202e", r"\u202e")), (
            "as no tokenizer is known"
        )
        assert texts(driver, ".turn.assistant .token") == ["4", "5"]
        assert HOSTILE.replace("\u202e", r"\u202e") in text(driver)
        assert "line 2: expected a JSON object" in text(driver, "#faults")


def test_an_error_is_shown_and_the_next_page_works(driver: Any, served: Serve, copied: Path) -> None:
    server = served(copied)
    go(driver, f"{server.address}#/episode?step=77&index=0")
    assert "Step 77 has no episode 0" in text(driver)
    go(driver, f"{server.address}#/episode?step=1&index=0")
    assert "Episode 1.0" in text(driver)


def test_a_browser_keeps_the_token_and_loses_it_from_the_address(
    driver: Any, served: Serve, real_runs: list[Path]
) -> None:
    server = served(real_runs[0], host="0.0.0.0")
    place = f"http://127.0.0.1:{server.server_port}/"
    go(driver, f"{place}?token={server.token}#/episode?step=1&index=0")
    assert driver.current_url.startswith(f"{place}#/episode?")
    go(driver, f"{place}#/episodes")
    assert len(lines(driver)) == 36
    driver.delete_all_cookies()
    driver.get(f"{place}api/runs")
    assert "expected the token" in text(driver, "body")


def test_a_table_grows_while_it_is_looked_at(driver: Any, served: Serve, copied: Path) -> None:
    server = served(copied)
    go(driver, f"{server.address}#/episodes?step=4")
    assert lines(driver) == []
    write_trajectories(copied / "trajectories" / "step-00004.parquet", [episode("new")])
    wait(driver, "document.querySelectorAll('[data-line]').length === 1", 15)


def test_curves_grow_while_they_are_looked_at(driver: Any, served: Serve, copied: Path) -> None:
    go(driver, f"{served(copied).address}#/episodes")
    driver.execute_script("document.querySelector('nav a').click()")
    wait(driver, "document.querySelectorAll('.chart').length")
    success = [json.loads(line)["success"] for line in (copied / "metrics.jsonl").read_text().splitlines()]
    with (copied / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 4, "success": 1 - success[-1]}) + '\n{"step": 5, "succ')
    told = "document.querySelector('.chart output').textContent"
    wait(driver, f"{told}.startsWith('mean of the last 2 steps: 0.500')", 15)
    assert text(driver, "#state") == "up to date: 4 steps"


def test_a_report_opens_from_a_file_and_answers_as_the_server_does(
    driver: Any, served: Serve, real_runs: list[Path], tmp_path: Path
) -> None:
    assert main(["report", *map(str, real_runs), "-o", str(tmp_path / "report.html"), "--episodes", "99"]) == 0
    places = (served(*real_runs).address, f"file://{tmp_path / 'report.html'}")
    for page in (
        "episodes?outcome=failure&sort=score",
        "episodes?run=fast&outcome=failure&step=2&high=0.7",
        "episodes?run=slow&low=0.4&high=0.6&sort=-length",
        "episodes?text=SLOW&longest=57",
        "episodes?text=round&everybody=1&step=2",
        "compare?",
        "group?run=slow&step=2&index=5",
        "episode?run=fast&step=3&index=7&colour=push",
        "pair?run=fast&step=2&index=5&other=slow",
        "pair?run=fast&step=1&index=0&other=slow",
        "episodes?group=0",
        "curves?find=part",
    ):
        seen = []
        for place in places:
            go(driver, f"{place}#/{page}")
            wait(driver, "!location.hash.includes('episodes') || performance.getEntriesByName('filled').length")
            driver.execute_script("document.querySelectorAll('td.wide, main > .soft').forEach((one) => one.remove())")
            seen.append(text(driver, "main table" if "text=" in page else "main"))
        assert seen[0] == seen[1], page


def test_keys_are_explained_and_focus_is_visible(driver: Any, served: Serve, real_runs: list[Path]) -> None:
    go(driver, f"{served(real_runs[0]).address}#/episodes")
    press(driver, "?")
    assert driver.execute_script("return document.getElementById('help').open")
    driver.execute_script("document.getElementById('help').close()")
    press(driver, "/")
    assert driver.execute_script("return document.activeElement.name") == "run"
    labels = "return [...document.querySelectorAll('input, select')].every((one) => one.labels.length === 1)"
    assert driver.execute_script(labels)
    assert "outline: 3px" in driver.execute_script(
        "return [...document.styleSheets[0].cssRules].find((one) => one.selectorText === ':focus-visible').cssText"
    )


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_by_day_and_by_night(dark: bool, served: Serve, real_runs: list[Path]) -> None:
    server = served(real_runs[0])
    with browser(dark=dark) as driver:
        go(driver, f"{server.address}#/episode?run=fast&step=1&index=2")
        script = """
            const style = getComputedStyle(document.documentElement);
            return Object.fromEntries(arguments[0].map((name) => {
              const probe = document.createElement('i');
              probe.style.color = style.getPropertyValue(`--${name}`);
              document.body.append(probe);
              return [name, getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(Number)];
            }))"""
        inks = ["ink", "soft", "good", "bad", "run-0", "run-1", "run-2", "run-3", "focus"]
        found = driver.execute_script(script, [*inks, "page", "card", "mark", "mark-ink"])
    assert (sum(found["page"]) < 150) == dark
    for ground in ("page", "card"):
        for ink in inks:
            assert contrast(found[ink], found[ground]) >= 4.5, (ink, ground)
    assert contrast(found["mark"], found["mark-ink"]) >= 4.5


def test_an_episode_without_tokens_shows_what_was_said(driver: Any, served: Serve, run_of: Callable[..., Path]) -> None:
    one = episode()
    one.tokens, one.mask, one.log_probs, one.replies = [], [], [], []
    one.hear_of("stop", 12, 5)
    server = served(run_of({1: [one]}))
    go(driver, f"{server.address}#/episode?run=mine&step=1&index=0")
    wait(driver, "document.querySelector('main').innerText.includes('No tokens')")
    assert texts(driver, ".said") == ["Is it?", "yes"]
    assert "5 tokens sampled, as the server counts them" in text(driver)
    assert "turn 1: 5 tokens, complete" in text(driver)
