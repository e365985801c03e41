"""The examples do what they say, at a size that a test can wait for."""

import json
import runpy
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from llmgym import check_env
from llmgym.agents import GRPO
from llmgym.cli import main
from llmgym.rollout.trajectory import Reply, Trajectory

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_reward_model_example_goes_from_preferences_to_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / "reward_model.py"))
    rewards = example["learn_rewards"](pairs=12, held_out=4, batch_size=4, steps=1)
    assert rewards.after.episodes == 4
    small = {"steps": 1, "prompts_per_step": 2, "group_size": 4, "eval_episodes": 4, "max_tokens": 48}
    result = example["learn_from_rewards"](rewards, **small)
    assert "acc_main" in result.after.parts
    assert result.metrics[0]["scores_missing"] == 0


def test_a_loss_learns_in_a_loop_of_ones_own_and_the_docs_show_that_loop(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "own_loop.py"))
    losses = [float(line.split()[3].rstrip(",")) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    code = (EXAMPLES / "own_loop.py").read_text(encoding="utf-8").split("\n", 2)[2]
    assert code in (EXAMPLES.parent / "docs" / "algorithms" / "README.md").read_text(encoding="utf-8")


OWN = f"{EXAMPLES / 'own_algorithm.py'}:Reinforce"
SMALL = {"prompts_per_step": 2, "group_size": 4, "eval_episodes": 0, "max_tokens": 48}


def test_an_algorithm_of_ones_own_trains_from_python_and_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = runpy.run_path(str(EXAMPLES / "own_algorithm.py"))["Reinforce"]
    (metrics,) = agent(output_dir=tmp_path / "python", **SMALL).train(steps=1).metrics
    assert metrics["grad_norm"] > 0
    words = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    options = [*words, "--steps", "1", "--discount", "0.9", "--output-dir", str(tmp_path / "command")]
    assert main(["train", OWN, *options]) == 0
    (run,) = (tmp_path / "command").iterdir()
    assert run.name.startswith("reinforce-AIOpsTriage-v0-")
    assert "discount: 0.9" in (run / "config.yaml").read_text()
    assert "reinforce-AIOpsTriage-v0: tiny" in capsys.readouterr().out


def test_its_advantages_are_those_of_each_turn() -> None:
    agent = runpy.run_path(str(EXAMPLES / "own_algorithm.py"))["Reinforce"](discount=0.5)

    def episode(*rewards: float) -> Trajectory:
        replies = [Reply(1 + 2 * turn, 2 + 2 * turn, "stop", 0, reward) for turn, reward in enumerate(rewards)]
        count = 1 + 2 * len(rewards)
        mask = [index % 2 == 1 for index in range(count)]
        return Trajectory(0, 0, list(range(count)), mask, [0.0] * count, replies, score=sum(rewards))

    batch = agent.prepare([episode(1.0, 2.0), episode(0.0, 4.0), episode(3.0)])
    assert batch["advantage"].tolist() == [  # returns: 2 and 2; 2 and 4; 3
        [0.0, 2 - 2.5, 0.0, 2 - 4.0, 0.0],
        [0.0, 2 - 2.5, 0.0, 4 - 2.0, 0.0],
        [0.0, 3 - 2.0, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Reinforce", "no such file"),
        ("own_algorithm.py", "expected path/to/file.py:Class or package.module:Class"),
        ("no.such.module:Reinforce", "No module named 'no'"),
        (f"{EXAMPLES / 'own_algorithm.py'}:Nothing", "expected an algorithm there"),
        (f"{EXAMPLES / 'own_algorithm.py'}:Trajectory", "expected an algorithm there"),
    ],
)
def test_what_is_not_an_algorithm_is_refused(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name]) == 2
    assert message in capsys.readouterr().err


def test_the_example_of_turn_rewards_credits_each_reply_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(gymnasium.registry, "ThreeHands-v0", raising=False)
    example = runpy.run_path(str(EXAMPLES / "turn_rewards.py"))
    env = gymnasium.make("ThreeHands-v0").unwrapped
    env.reset(seed=0)
    rewards, over = [], False
    while not over:
        _, reward, _, over, info = env.step(example["MOVES"][env.card])  # type: ignore[attr-defined]
        rewards.append(reward)
    assert rewards == [1.0] * 3
    assert (info["right"], info["success"]) == (3.0, 1.0)
    small = {"model": "tiny-tools", "prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "eval_episodes": 2}
    (metrics,) = example["PPO"](env="ThreeHands-v0", output_dir=tmp_path, **small).train(steps=1).metrics
    assert "part/right" in metrics


@pytest.mark.parametrize("name", ["verl_reward", "trl_reward"])
def test_rows_and_reward_functions_of_other_libraries_train_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    (run,) = (tmp_path / "runs").iterdir()
    evaluations = json.loads((run / "evaluations.json").read_text())
    assert [one["episodes"] for one in evaluations.values()] == [8, 8]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [0 < json.loads(line)["reward"] < 1 for line in lines] == [True, True]


def test_a_data_set_is_trained_on_from_the_command_line_with_a_function_of_a_file(tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "verl_reward.py"))["write_rows"](tmp_path / "train.parquet", 8)
    rows = "".join(f'{{"prompt": "{n}?", "reward_model": {{"ground_truth": "{n}"}}}}\n' for n in range(3))
    (tmp_path / "val.jsonl").write_text(rows)
    files = ["--data", f"{tmp_path}/train.parquet", "--eval-data", f"{tmp_path}/val.jsonl"]
    small = ["--steps", "1", "--prompts-per-step", "2", "--group-size", "2", "--max-tokens", "8"]
    scorer = ["--scorer", f"{EXAMPLES / 'verl_reward.py'}:compute_score"]
    assert main(["grpo", "--env", "qa", *files, *scorer, *small, "--output-dir", str(tmp_path / "runs")]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert f"data: {tmp_path}/train.parquet" in (run / "config.yaml").read_text()
    assert "part/characters" in (run / "metrics.jsonl").read_text()


def test_the_example_of_a_gymnasium_environment_in_words_is_solved_by_its_expert_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(gymnasium.registry, "FrozenLakeText-v0", raising=False)
    path = EXAMPLES / "gymnasium_text.py"
    example = runpy.run_path(str(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    check_env(gymnasium.make("FrozenLakeText-v0"), seeds=5)
    small = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "eval_episodes": 2}
    (metrics,) = example["GRPO"](env="FrozenLakeText-v0", output_dir=tmp_path, **small).train(steps=1).metrics
    assert "part/invalid" in metrics


def test_the_example_of_two_players_trains_on_both_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gymnasium.registry, "Duel-v0", raising=False)
    text = (EXAMPLES / "two_players.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    example = runpy.run_path(str(EXAMPLES / "two_players.py"))
    small = {"prompts_per_step": 4, "group_size": 8, "max_tokens": 8, "eval_episodes": 2, "temperature": 3.0}
    (metrics,) = example["GRPO"](env="Duel-v0", output_dir=tmp_path, **small).train(steps=1).metrics
    assert metrics["part/strength"] > 0
    assert metrics["grad_norm"] > 0


def test_the_example_with_a_calculator_trains_on_what_its_expert_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(gymnasium.registry, "Product-v0", raising=False)
    example = runpy.run_path(str(EXAMPLES / "tools.py"))
    check_env(gymnasium.make("Product-v0"))
    small = {"env": "Product-v0", "max_tokens": 64, "output_dir": tmp_path}
    taught: dict[str, Any] = {"learning_rate": 1e-3, "examples": 100, "batch_size": 8, "eval_episodes": 40}
    shown = example["SFT"](**small, **taught, model="tiny-tools", steps=40).train()
    assert shown.after.parts["tools/calls"] > 0.5
    agent = example["GRPO"](**small, model=shown.path / "checkpoint", prompts_per_step=2, group_size=4, eval_episodes=0)
    (metrics,) = agent.train(steps=1).metrics
    assert metrics["part/tools/calls"] > 0.5


def test_the_example_that_asks_a_server_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gymnasium.registry, "Dealer-v0", raising=False)
    example = runpy.run_path(str(EXAMPLES / "http_env.py"))
    env = gymnasium.make("Dealer-v0")
    for seed in range(6):
        card = env.reset(seed=seed)[0].split()[2]
        assert env.step("bet")[:3] == ("", float(card == "K."), True)
    small = {"prompts_per_step": 2, "group_size": 4, "max_tokens": 8, "eval_episodes": 4}
    (metrics,) = GRPO(env="Dealer-v0", model="tiny-tools", output_dir=tmp_path, **small).train(steps=1).metrics
    assert metrics["scores_missing"] == 0
    example["server"].shutdown()
