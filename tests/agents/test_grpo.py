"""GRPO from end to end: it learns, leaves everything behind, and says what is wrong with what it is given."""

import contextlib
import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
import yaml
from conftest import random_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import llmgym
from llmgym.agents import GRPO
from llmgym.agents.grpo import GRPOConfig, main
from llmgym.data.trajectories import read_trajectories
from llmgym.demo.tiny import CHATML
from llmgym.errors import ConfigError, LLMGymError
from llmgym.learn.checkpoint import Origin, origin_of
from llmgym.report.metrics import varies
from llmgym.train import Result

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "eval_episodes": 0, "max_tokens": 48}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A short real run."""
    agent = GRPO(
        env="AIOpsTriage",
        prompts_per_step=8,
        group_size=8,
        max_tokens=64,
        learning_rate=1e-3,
        eval_episodes=60,
        sample_every=5,
        output_dir=tmp_path_factory.mktemp("runs"),
    )
    return agent.train(steps=9)


@pytest.mark.slow
def test_a_small_run_improves_its_reward(run: Result) -> None:
    rewards = [metrics["reward"] for metrics in run.metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


@pytest.mark.slow
def test_the_run_directory_holds_everything(run: Result) -> None:
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "evaluations.json",
        "trajectories",
        "learning_curve.png",
        "checkpoint",
    }
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.metrics
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert lines[-1]["kl"] > 1e-4
    shards = sorted((run.path / "trajectories").iterdir())
    assert [shard.name for shard in shards] == [f"step-{step:05d}.parquet" for step in range(1, 10)]
    trajectories = read_trajectories(shards[3])
    assert len(trajectories) == 64
    assert {reply.weight_version for t in trajectories for reply in t.replies} == {3}
    facts = json.loads((run.path / "environment.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["llmgym"] == llmgym.__version__
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    came_to = {"env": "AIOpsTriage", "steps": 9, "learning_rate": 1e-3, "device": "cpu", "engine": "local"}
    longest = json.loads((run.path / "checkpoint" / "config.json").read_text())["max_position_embeddings"]
    assert {**config, **came_to, "context_length": longest, "micro_batch_tokens": 2048} == config
    GRPOConfig.from_yaml(run.path / "config.yaml")  # it reads back
    assert (run.path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_from_a_checkpoint_says_that_it_begins_anew(
    run: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "env": "AIOpsTriage", "model": str(run.path / "checkpoint"), "output_dir": tmp_path}
    with contextlib.closing(GRPO(**options)) as agent:
        again = agent.train(steps=1)
    said = " ".join(capsys.readouterr().out.split())
    run_before = "grpo on llmgym/AIOpsTriage-v0 (difficulty=0), 9 steps with a learning rate of 0.001"
    assert f"is a checkpoint of llmgym: {run_before}" in said
    assert "with a learning rate of 1e-06 after 3 steps of warm-up" in said
    assert f"give --resume-from {run.path / 'checkpoint'} in place of --model" in said
    found = origin_of(str(again.path / "checkpoint"))
    assert found == Origin("grpo", "llmgym/AIOpsTriage-v0", str(run.path / "checkpoint"), 1, 1e-6, 0)


@pytest.mark.slow
def test_the_checkpoint_opens_in_transformers_and_talks_as_it_did(run: Result) -> None:
    model = AutoModelForCausalLM.from_pretrained(run.path / "checkpoint").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.path / "checkpoint")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>assistant\n")
    again = GRPO(env="AIOpsTriage", model=str(run.path / "checkpoint"), **SMALL)
    tokens = torch.tensor([tokenizer(text)["input_ids"]])
    torch.testing.assert_close(model(tokens).logits, again.trainer.student.model(tokens).logits)
    assert run.after is not None
    same = {"env": "AIOpsTriage", "env_kwargs": {"difficulty": 0}}  # as the model's name chose for the run
    evaluation = GRPO(model=str(run.path / "checkpoint"), eval_episodes=60, **same).evaluate()
    assert evaluation.reward == pytest.approx(run.after.reward, abs=0.1)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    runs = [GRPO(output_dir=tmp_path, seed=seed, **SMALL).train(steps=2) for seed in (3, 3, 4)]
    same, again, other = ([{k: v for k, v in m.items() if not varies(k)} for m in run.metrics] for run in runs)
    assert same == again
    assert same != other
    assert len({run.path for run in runs}) == 3  # begun in the same second, none written over


def test_the_policy_that_learns_is_the_one_that_sampled(tmp_path: Path) -> None:
    result = GRPO(output_dir=tmp_path, updates_per_step=1, **SMALL).train(steps=1)
    assert result.metrics[0]["clip_fraction"] == 0.0
    assert result.metrics[0]["kl_approx"] == pytest.approx(0.0, abs=1e-5)
    assert result.metrics[0]["ESS"] == pytest.approx(1.0, abs=1e-4)


def test_without_a_mismatch_none_is_measured_and_a_correction_changes_nothing(tmp_path: Path) -> None:
    hot = {**SMALL, "temperature": 2.0}
    runs = [
        GRPO(output_dir=tmp_path, mismatch_correction=correction, mismatch_level=level, **hot).train(steps=1)
        for correction, level in [("none", "token"), ("truncate", "token"), ("mask", "sequence")]
    ]
    for run in runs:
        (metrics,) = run.metrics
        assert metrics["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics["mismatch/log_ratio_max"] == pytest.approx(0.0, abs=1e-3)
        assert metrics["mismatch/ess"] == pytest.approx(1.0, abs=1e-4)
        assert metrics["mismatch/ess_sequence"] == pytest.approx(1.0, abs=1e-3)
        assert metrics["grad_norm"] == pytest.approx(runs[0].metrics[0]["grad_norm"], rel=1e-3)
        assert json.loads((run.path / "metrics.jsonl").read_text()) == metrics


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_mismatch_is_measured_and_the_correction_starts_from_the_policy_that_learns(
    level: str, tmp_path: Path
) -> None:
    rounded = {**SMALL, "updates_per_step": 1, "engine_dtype": "bfloat16", "output_dir": tmp_path}
    correction = {"mismatch_correction": "truncate", "mismatch_level": level, "mismatch_threshold": 1.001}
    (plain,) = GRPO(**rounded).train(steps=1).metrics
    (corrected,) = GRPO(**rounded, **correction).train(steps=1).metrics
    for metrics in (plain, corrected):
        assert metrics["mismatch/kl"] > 1e-7
        assert metrics["mismatch/log_ratio_max"] > 1e-3
        assert metrics["mismatch/ess"] < 1.0
    assert plain["mismatch/kl"] == pytest.approx(corrected["mismatch/kl"], rel=1e-3)
    assert 0 < corrected["mismatch/corrected"] < 1
    assert abs(plain["kl_approx"]) > 1e-6  # to the policy that sampled
    assert corrected["kl_approx"] == pytest.approx(0.0, abs=1e-7)  # to the one that learns


def test_a_kl_penalty_reads_the_reference(tmp_path: Path) -> None:
    result = GRPO(output_dir=tmp_path, kl_coef=0.5, updates_per_step=1, **SMALL).train(steps=2)
    assert result.metrics[0]["loss_kl_to_ref"] == pytest.approx(0.0, abs=1e-4)
    assert result.metrics[1]["kl_to_ref"] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"advantage": "rloo", "aggregation": "seq-mean-token-sum"},
        {"advantage": "dr_grpo", "aggregation": "seq-mean-token-sum-norm"},
        {"advantage": "batch_std", "dual_clip": 3.0, "clip_epsilon": (0.2, 0.28)},
        {"advantage": "reinforce_plus_plus", "kl_coef": 0.1, "kl_estimator": "k2"},
        {"advantage": "optimal_baseline", "surrogate": "cispo", "clip_epsilon": (1.0, 0.5)},
        {"ratio": "sequence", "clip_epsilon": (3e-4, 4e-4), "aggregation": "seq-mean-token-mean"},
    ],
    ids=lambda options: options.get("advantage", "GSPO"),
)
def test_the_first_step_of_every_variant_is_along_the_plain_policy_gradient(
    options: dict[str, Any], tmp_path: Path
) -> None:
    options = {**SMALL, "updates_per_step": 1, "temperature": 2.0, **options}
    agent = GRPO(output_dir=tmp_path, scorer=lambda e: len(e.actions[0]), **options)
    result = agent.train(steps=1)
    (metrics,) = result.metrics
    assert metrics["clip_fraction"] == 0.0
    # The ratio is 1, so the gradient is that of the weighted log-probabilities, computed here on a fresh copy.
    fresh = GRPO(output_dir=tmp_path, **options)
    batch = fresh.prepare(read_trajectories(result.path / "trajectories" / "step-00001.parquet"))
    policy = fresh.trainer.student.policy
    weight = fresh.trainer.learner.loss.weights(batch)
    (weight * batch["advantage"] * policy.log_probs(batch)).sum().backward()
    norm = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]).norm()
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
    assert norm > 0


def test_filtering_leaves_replies_that_were_cut_off_out_of_the_loss_and_in_the_baseline(tmp_path: Path) -> None:
    short = {**SMALL, "max_tokens": 36, "temperature": 2.0, "updates_per_step": 1}
    trajectories = read_trajectories(
        GRPO(output_dir=tmp_path, scorer=lambda e: len(e.actions[0]), **short).train(steps=1).path
        / "trajectories"
        / "step-00001.parquet"
    )
    cut_off = torch.tensor([any(reply.finish_reason == "length" for reply in t.replies) for t in trajectories])
    assert 0 < int(cut_off.sum()) < len(cut_off)
    plain, filtered = (GRPO(filter_cut_off=on, **short).prepare(trajectories) for on in (False, True))
    assert not filtered["mask"][cut_off].any()
    torch.testing.assert_close(filtered["advantage"][~cut_off], plain["advantage"][~cut_off])
    assert plain["mask"][cut_off].any(dim=1).all()


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_any_directory_with_a_causal_lm_and_a_chat_template_trains(
    family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    random_model(family).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    options = {**SMALL, "max_tokens": 8, "updates_per_step": 1}
    result = GRPO(env="AIOpsTriage", model=str(tmp_path / "model"), output_dir=tmp_path / "runs", **options).train(
        steps=1
    )
    assert result.metrics[0]["learning_rate"] == pytest.approx(1e-6 / 3)
    assert result.metrics[0]["reply_tokens"] <= 8


FORGETFUL = CHATML.replace("message['content']", "(message['content'] if loop.last else message['content'][:9])")


@pytest.mark.parametrize("history", ["append", "template"])
def test_what_a_template_rewrites_is_reported_and_on_request_followed_token_by_token(
    history: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_model("llama").save_pretrained(tmp_path / "model")
    forgetful = copy.deepcopy(tokenizer)
    forgetful.chat_template = FORGETFUL
    forgetful.save_pretrained(tmp_path / "model")
    options = {**SMALL, "max_tokens": 24, "updates_per_step": 1, "history": history}
    result = GRPO(
        env="AIOpsTriage",
        model=str(tmp_path / "model"),
        output_dir=tmp_path / "runs",
        scorer=lambda e: len(e.actions[0]),
        **options,
    ).train(steps=1)
    told = f"history {history})"
    assert told in capsys.readouterr().out
    assert told in json.loads((result.path / "environment.json").read_text())["template"]
    (metrics,) = result.metrics
    trajectories = read_trajectories(result.path / "trajectories" / "step-00001.parquet")
    assert {len(trajectory.row_starts) for trajectory in trajectories} == {1 if history == "append" else 2}
    assert metrics["grad_norm"] > 0
    # The learner sees each reply after the very tokens that it was sampled after.
    assert metrics["mismatch/log_ratio_max"] == pytest.approx(0.0, abs=1e-3)
    assert metrics["clip_fraction"] == 0.0


def test_a_registered_scorer_replaces_the_environments_own(tmp_path: Path) -> None:
    constant = llmgym.register_scorer("constant-test")(lambda episode: 0.25)
    for scorer in ("constant-test", constant):
        result = GRPO(output_dir=tmp_path, scorer=scorer, **SMALL).train(steps=1)
        assert result.metrics[0]["reward"] == pytest.approx(0.25)
        assert result.metrics[0]["groups_without_signal"] == 2
        assert result.metrics[0]["grad_norm"] == 0.0


def test_a_step_without_a_single_score_changes_nothing(tmp_path: Path) -> None:
    agent = GRPO(
        output_dir=tmp_path, scorer=lambda episode: llmgym.Score(None, error="no judge"), max_failure_rate=1.0, **SMALL
    )
    before = [parameter.clone() for parameter in agent.trainer.student.model.parameters()]
    result = agent.train(steps=1)
    assert result.metrics[0]["scores_missing"] == 8
    assert json.loads((result.path / "metrics.jsonl").read_text())["reward"] is None
    for one, other in zip(agent.trainer.student.model.parameters(), before, strict=True):
        assert torch.equal(one, other)


def test_a_second_train_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    agent = GRPO(output_dir=tmp_path, **SMALL)
    first, second = agent.train(steps=1), agent.train(steps=1)
    assert [m["step"] for m in (*first.metrics, *second.metrics)] == [1, 2]
    assert first.path != second.path


# Bad input: one message, exit code 2, nothing lost.


def command(*words: str) -> list[str]:
    small = ["--prompts-per-step", "1", "--group-size", "2", "--eval-episodes", "0", "--max-tokens", "8"]
    return [*words, *small]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(command(*words)) == 2
    message = capsys.readouterr().err
    assert message.startswith("python -m llmgym.agents.grpo: ")
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "AIOpTriage"}, "Did you mean 'AIOpsTriage'"),
        ({"env": "AIOpsTriage", "scorer": "brief-tset"}, "Did you mean 'brief-test'"),
        ({}, "env: expected an environment"),
    ],
)
def test_names_that_stand_for_nothing_are_refused_before_a_model_is_looked_for(
    options: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    llmgym.register_scorer("brief-test")(lambda episode: 1.0)
    with pytest.raises(LLMGymError, match=message):
        GRPO(model="nowhere/at/all", **options)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert message in refusal(capsys, "--model", "nowhere/at/all", *words)


def test_unknown_arguments_of_the_environment_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'dificulty'" in refusal(capsys, "--env-kwargs", "dificulty=2")
    assert "Cannot make" in refusal(capsys, "--env-kwargs", "max_episode_steps=0")
    assert "difficulty has to be one of" in refusal(capsys, "--env-kwargs", "difficulty=9")


def test_a_group_of_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--group-size", "1"]) == 2
    assert "nothing to be compared with" in capsys.readouterr().err


def test_a_dual_clip_of_cispo_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected no dual_clip" in refusal(capsys, "--surrogate", "cispo", "--dual-clip", "3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "found none" in refusal(capsys, "--device", "cuda")


def test_a_model_directory_without_its_parts_is_refused(
    capsys: pytest.CaptureFixture[str], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    words = ["--env", "AIOpsTriage", "--model"]
    assert "no such directory" in refusal(capsys, *words, str(tmp_path / "nowhere"))
    directory = tmp_path / "model"
    random_model("qwen2").save_pretrained(directory)
    assert "expected a tokenizer" in refusal(capsys, *words, str(directory))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>").save_pretrained(
        directory
    )
    assert "no chat template" in refusal(capsys, *words, str(directory))
    tokenizer.save_pretrained(directory)
    (directory / "model.safetensors").unlink()
    assert "safetensors" in refusal(capsys, *words, str(directory))
    (directory / "model.safetensors").write_bytes(b"truncated")
    assert "expected weights as safetensors" in refusal(capsys, *words, str(directory))


def test_a_prompt_longer_than_the_context_is_refused(
    capsys: pytest.CaptureFixture[str], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    random_model("qwen2", max_position_embeddings=128).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    message = refusal(
        capsys, "--env", "AIOpsTriage", "--model", str(tmp_path / "model"), "--output-dir", str(tmp_path / "runs")
    )
    assert "no room for a reply in a context of 128" in message


def test_an_output_directory_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    message = refusal(capsys, "--output-dir", str(tmp_path / "file"))
    assert "expected a directory that can be written to" in message
    assert (tmp_path / "file").read_text() == "kept"


class Faulty(gymnasium.Env[str, str]):
    """Works for a while, then returns nonsense."""

    observation_space = action_space = llmgym.UnicodeText()
    steps = 0

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "hello", {}

    def step(self, action: str) -> Any:
        Faulty.steps += 1
        if Faulty.steps <= 4:
            return "", 1.0, True, False, {}
        return {"observation": (None, 1.0, True, False, {}), "reward": ("", math.nan, True, False, {})}[self.fault]


@pytest.mark.parametrize(
    ("fault", "message"),
    [("observation", "Faulty.step has to return a string"), ("reward", "Faulty.step has to return a finite number")],
)
def test_an_environment_that_breaks_is_named_and_what_was_done_before_is_kept(
    fault: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gymnasium.register("Faulty-v0", entry_point=Faulty)
    Faulty.steps = 0
    words = ["--env", "Faulty-v0", "--env-kwargs", f"fault={fault}", "--max-failure-rate", "0"]
    assert message in refusal(capsys, *words, "--output-dir", str(tmp_path))
    gymnasium.registry.pop("Faulty-v0")
    (run,) = tmp_path.iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert len(read_trajectories(run / "trajectories" / "step-00002.parquet")) == 2
    AutoModelForCausalLM.from_pretrained(run / "checkpoint")


@pytest.mark.slow
def test_the_custom_environment_example_runs_as_it_is(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "custom_env.py"
    run = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "after training" in run.stdout
    (evaluations,) = tmp_path.glob("runs/*/evaluations.json")
    before, after = json.loads(evaluations.read_text()).values()
    assert before["success"] < 0.75 < 0.9 < after["success"]


def test_adapters_learn_what_the_engine_samples_with_and_are_saved_alone_or_merged(tmp_path: Path) -> None:
    options = {**SMALL, "lora_rank": 4, "learning_rate": 5e-3, "warmup_steps": 0, "output_dir": tmp_path}
    apart, merged = GRPO(**options), GRPO(lora_merge=True, **options)
    runs = [agent.train(steps=2) for agent in (apart, merged)]
    for run in runs:
        assert run.metrics[1]["kl"] > 0
        assert run.metrics[1]["mismatch/log_ratio_max"] < 1e-3
    assert (runs[0].path / "checkpoint" / "adapter_model.safetensors").exists()
    assert not (runs[1].path / "checkpoint" / "adapter_config.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(runs[1].path / "checkpoint")
    tokens = torch.arange(5, 25)[None]
    torch.testing.assert_close(plain(tokens).logits, merged.trainer.student.model(tokens).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        apart.trainer.student.model(tokens).logits, merged.trainer.student.model(tokens).logits, atol=1e-4, rtol=1e-4
    )


def test_dynamic_sampling_replaces_groups_whose_scores_are_all_equal(tmp_path: Path) -> None:
    def by_seed(episode: llmgym.Episode) -> float:  # half of the tasks score all episodes alike
        return float(len(episode.turns[0].observation) % 2 and len(episode.actions[0]))

    options = {**SMALL, "prompts_per_step": 3, "temperature": 2.0}
    agent = GRPO(scorer=by_seed, rollouts_per_step=20, output_dir=tmp_path, **options)
    played, kept = agent.trainer.steps._roll_out(1)
    assert len(kept) == 3 * 4
    assert len(played) > len(kept)
    groups = [[t.score for t in kept if t.group == group] for group in dict.fromkeys(t.group for t in kept)]
    assert [len(scores) for scores in groups] == [4, 4, 4]
    assert all(len(set(scores)) > 1 for scores in groups)
    assert {t.group for t in played} == set(range(len(played) // 4))


def test_a_group_without_signal_is_counted_by_what_the_estimator_compares(tmp_path: Path) -> None:
    def constant(episode: llmgym.Episode) -> float:
        return 1.0

    options = {"scorer": constant, "output_dir": tmp_path, **SMALL}
    for advantage, expected in (("group_std", 2), ("reinforce_plus_plus", 0)):
        (metrics,) = GRPO(advantage=advantage, **options).train(steps=1).metrics
        assert metrics["groups_without_signal"] == expected


def test_a_group_of_one_needs_an_estimator_that_compares_with_the_batch() -> None:
    assert GRPO(group_size=1, advantage="reinforce_plus_plus").config.rollout.group_size == 1
    with pytest.raises(ConfigError, match="nothing to be compared with"):
        GRPO(group_size=1)


def test_the_environments_of_training_are_closed_with_their_agent(tmp_path: Path) -> None:
    closed: list[llmgym.TextEnv] = []

    @llmgym.register_env("Closing-test-v0")
    class Closing(llmgym.TextEnv):
        def begin(self) -> str:
            return "Say something."

        def score(self, episode: llmgym.Episode) -> float:
            return float(len(episode.actions[0]))

        def close(self) -> None:
            closed.append(self)

    try:
        small = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 4, "eval_episodes": 3}
        agent = GRPO(env="Closing-test-v0", output_dir=tmp_path, **small)
        agent.train(steps=1)
        agent.close()
    finally:
        del gymnasium.registry["Closing-test-v0"]
    assert len(closed) == len(set(closed)) == 3 + 3 + 4  # of both evaluations, and of training


def test_ranks_that_cannot_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, and MASTER_ADDR is not set: expected torchrun"):
        GRPO(output_dir=tmp_path).train(1)


def test_one_rank_has_no_part_of_the_model_to_itself_and_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"prompts_per_step": 1, "group_size": 2, "max_tokens": 8, "eval_episodes": 0}
    GRPO(output_dir=tmp_path, sharded=True, **small).train(1)
    assert "sharded: there is one rank, which has the whole model" in " ".join(capsys.readouterr().out.split())
