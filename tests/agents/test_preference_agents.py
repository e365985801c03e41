"""The agents that learn from data: what they read, what becomes of it, and that they learn."""

import copy
import json
import math
from itertools import filterfalse
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import random_model
from tiers import long_but
from transformers import PreTrainedTokenizerFast

from llmgym.agents import DPO, IPO, KLDPO, KTO, ORPO, SFT, RewardMLE, dpo, kto, reward_model, sft
from llmgym.data.feedback import Feedback
from llmgym.data.preferences import Preference, generate_preferences, write_preferences
from llmgym.report.metrics import varies
from llmgym.train.agent import OfflineAgent
from llmgym.types import Message

AGENTS: list[type[OfflineAgent]] = [DPO, IPO, KLDPO, KTO, ORPO, RewardMLE, SFT]
FROM_REFERENCE = {"dpo": math.log(2), "ipo": 25.0, "kl_dpo": math.log(2), "kto": 0.5}
every_agent = pytest.mark.parametrize("agent_class", AGENTS, ids=lambda agent_class: agent_class.name)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "preferences.parquet"
    write_preferences(path, generate_preferences("AIOpsTriage", 8, seed=5))
    return path


def small(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return {"batch_size": 4, "examples": 2, "eval_episodes": 0, "output_dir": tmp_path / "runs", **options}


@every_agent
def test_a_few_steps_from_a_file_leave_a_run_directory_and_other_weights(
    agent_class: type[OfflineAgent], pairs: Path, tmp_path: Path
) -> None:
    agent = agent_class(**small(tmp_path, data=pairs))
    before = [parameter.clone() for parameter in agent.trainer.student.model.parameters()]
    result = agent.train(steps=2)
    assert json.loads((result.path / "metrics.jsonl").read_text().splitlines()[0]) == result.metrics[0]
    assert all(math.isfinite(value) for metrics in result.metrics for value in metrics.values())
    assert all(metrics["grad_norm"] > 0 for metrics in result.metrics)
    assert not all(
        torch.equal(one, other) for one, other in zip(agent.trainer.student.model.parameters(), before, strict=True)
    )
    assert (result.path / "checkpoint" / "model.safetensors").exists()
    if agent_class.name in FROM_REFERENCE:
        assert result.metrics[0]["loss"] == pytest.approx(FROM_REFERENCE[agent_class.name], rel=1e-4)
        assert result.metrics[0]["accuracy"] == pytest.approx(0.5, abs=0.5)
    expected = {"step", "epoch", "loss", "seconds", "grad_norm", "learning_rate"}
    assert expected <= result.metrics[0].keys()


def test_data_of_ones_own_is_judged_in_an_environment_only_if_asked(pairs: Path, tmp_path: Path) -> None:
    options = {"batch_size": 4, "output_dir": tmp_path}
    run = DPO(data=pairs, **options).train(steps=1)
    assert run.before is None
    assert run.path.name.startswith("dpo-preferences-")
    assert "eval_episodes: 0" in (run.path / "config.yaml").read_text()
    assert json.loads((run.path / "environment.json").read_text())["env_id"] is None
    judged = DPO(data=pairs, eval_episodes=2, **options).train(steps=1)
    assert judged.before is not None
    assert judged.path.name.startswith("dpo-AIOpsTriage-v0-")
    assert DPO(examples=4, **options).config.held_out_episodes == 500


@every_agent
def test_without_a_file_the_environment_gives_the_examples(agent_class: type[OfflineAgent], tmp_path: Path) -> None:
    agent = agent_class(env="AIOpsTriage", env_kwargs={"language": "zh"}, **small(tmp_path, examples=6))
    examples = agent.examples()
    assert len(examples) == 6
    assert agent.examples() == examples
    assert agent_class(env_kwargs={"language": "zh"}, **small(tmp_path, examples=6, seed=1)).examples() != examples
    assert "你" in examples[0].prompt[0].content


@every_agent
def test_the_mask_covers_what_is_to_be_learnt_and_nothing_else(
    agent_class: type[OfflineAgent], pairs: Path, tmp_path: Path
) -> None:
    agent = agent_class(**small(tmp_path, data=pairs))
    examples = agent.examples()[:3]
    batch = agent.prepare(examples, agent.trainer.student.scribe)
    codec = agent.trainer.student.codec
    said = [codec.text(row["tokens"][row["mask"]].tolist()) for row in batch]
    expected = [
        completion[0].content
        for one in examples
        for completion in ((one.chosen, one.rejected) if isinstance(one, Preference) else (one.completion,))
    ]
    assert said == expected
    for row in batch:
        assert int(row["tokens"][int(row["length"]) - 1]) in codec.stop_token_ids


@every_agent
def test_micro_batches_change_neither_metrics_nor_weights(
    agent_class: type[OfflineAgent], pairs: Path, tmp_path: Path
) -> None:
    metrics, weights = [], []
    for tokens in (1, 100_000):
        agent = agent_class(**small(tmp_path, data=pairs, micro_batch_tokens=tokens, learning_rate=1e-5))
        metrics.append(agent.train(steps=2).metrics)
        weights.append(
            torch.cat([parameter.detach().flatten() for parameter in agent.trainer.student.model.parameters()])
        )
    for cut, whole in zip(*metrics, strict=True):
        for key in filterfalse(varies, whole):
            assert cut[key] == pytest.approx(whole[key], rel=1e-3, abs=1e-5), key
    torch.testing.assert_close(*weights, atol=2e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("agent_class", long_but(AGENTS, DPO, KTO, SFT), ids=lambda agent_class: agent_class.name)
def test_a_short_run_prefers_what_it_was_shown(agent_class: type[OfflineAgent], pairs: Path, tmp_path: Path) -> None:
    agent = agent_class(**small(tmp_path, data=pairs, batch_size=16))
    judge = DPO(**small(tmp_path, data=pairs))
    batch = judge.prepare(judge.examples(), judge.trainer.student.scribe)

    def margin() -> float:
        with torch.no_grad():
            sums = agent.trainer.student.policy.log_probs(batch).sum(dim=1)
        return float((sums[batch["chosen"]] - sums[~batch["chosen"]]).mean())

    before = margin()
    result = agent.train(steps=8)
    assert margin() > before
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 == 0 else "user", content) for i, content in enumerate(contents))


def test_all_turns_of_an_answer_are_learnt_and_what_was_answered_is_not(tmp_path: Path) -> None:
    prompt = (Message("system", "Be brief."), Message("user", "2 + 2?"))
    path = tmp_path / "preferences.parquet"
    write_preferences(path, [Preference(prompt, turns("5", "sure?", "no, 4"), turns("6"))])
    agent = DPO(**small(tmp_path, data=path))
    batch = agent.prepare(agent.examples(), agent.trainer.student.scribe)
    codec = agent.trainer.student.codec
    assert [codec.text(row["tokens"][row["mask"]].tolist()) for row in batch] == ["5no, 4", "6"]
    assert batch["chosen"].tolist() == [True, False]
    assert math.isfinite(agent.train(steps=1).metrics[0]["loss"])


def test_scores_are_rewards_and_without_them_chosen_is_1_and_rejected_0(tmp_path: Path) -> None:
    prompt = (Message("user", "2 + 2?"),)
    scored = Preference(prompt, turns("4"), turns("5"), score_chosen=0.75, score_rejected=-0.5)
    half_scored = Preference(prompt, turns("4"), turns("5"), score_chosen=0.75)
    agent = RewardMLE(**small(tmp_path))
    assert agent.prepare([scored, half_scored], agent.trainer.student.scribe)["reward"].tolist() == [
        0.75,
        -0.5,
        1.0,
        0.0,
    ]


def feedback(question: str, answer: str, desirable: bool = True) -> Feedback:
    return Feedback((Message("user", question),), turns(answer), desirable)


def test_the_reference_point_is_measured_on_answers_to_other_prompts(tmp_path: Path) -> None:
    agent = KTO(**small(tmp_path))
    agent.trainer.student.begin(agent.trainer.learner)
    examples = [feedback("a", "1"), feedback("a", "2", False), feedback("b", "3")]
    batch = agent.prepare(examples, agent.trainer.student.scribe)
    assert batch["desirable"].tolist() == [True, False, True]
    mismatched = batch.get_non_tensor("mismatched")
    seen = [[message.content for message in trajectory.messages] for trajectory in mismatched]
    assert seen == [["a", "3"], ["a", "3"], ["b", "1"]]
    agent.complete(batch, agent.trainer.learner)
    assert batch["reference_point"].tolist() == [0.0] * 3  # the policy is the reference
    batch = agent.prepare(examples, agent.trainer.student.scribe)
    student = agent.trainer.student
    reference = copy.deepcopy(student.model)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(0.7)
    agent.complete(batch, agent.trainer.learner)
    ratios = []
    for trajectory in mismatched:
        tokens = torch.tensor([trajectory.tokens])

        def log_prob(
            model: torch.nn.Module, tokens: torch.Tensor = tokens, mask: list[bool] = trajectory.mask
        ) -> float:
            with torch.no_grad():
                log_probs = model(tokens).logits[0, :-1].log_softmax(-1)
            chosen = log_probs.gather(1, tokens[0, 1:, None])[:, 0]
            return float(chosen[torch.tensor(mask[1:])].sum())

        ratios.append(log_prob(student.model) - log_prob(reference))
    assert batch["reference_point"].tolist() == pytest.approx([max(0.0, sum(ratios) / 3)] * 3, abs=1e-3)


def test_where_all_prompts_are_the_same_the_reference_point_is_0(tmp_path: Path) -> None:
    agent = KTO(**small(tmp_path))
    agent.trainer.student.begin(agent.trainer.learner)
    batch = agent.prepare([feedback("a", "1"), feedback("a", "2", False)], agent.trainer.student.scribe)
    agent.complete(batch, agent.trainer.learner)
    assert batch["reference_point"].tolist() == [0.0, 0.0]


# Bad input: one message, exit code 2.


def refusal(capsys: pytest.CaptureFixture[str], main: Any, tmp_path: Path, *words: str) -> str:
    assert main(["--eval-episodes", "0", "--steps", "1", "--output-dir", str(tmp_path / "runs"), *words]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/checkpoint"))
    return message


@pytest.mark.parametrize(
    ("main", "columns", "message"),
    [
        (dpo.main, {"prompt": ["x"], "chosen": ["y"], "reject": ["z"]}, "Did you mean 'reject'?"),
        (dpo.main, {"prompt": ["x"], "chosen": [1], "rejected": ["z"]}, "expected a string or messages, got int: 1"),
        (kto.main, {"prompt": ["x"], "completion": ["y"], "lable": [True]}, "Did you mean 'lable'?"),
        (sft.main, {"mesages": ["x"]}, "Did you mean 'mesages'?"),
    ],
)
def test_a_file_with_other_columns_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, main: Any, columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    assert message in refusal(capsys, main, tmp_path, "--data", str(tmp_path / "data.parquet"))


def test_an_example_that_does_not_fit_the_context_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pairs: Path
) -> None:
    message = refusal(capsys, dpo.main, tmp_path, "--data", str(pairs), "--context-length", "100")
    assert "does not fit a context of 100" in message


ALTERNATING = """{%- for message in messages %}
    {%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("Roles must alternate.") }}
    {%- endif %}
    {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{% endif %}"""
"""A template that takes no two messages of one role, as Gemma's."""


def alternating_model(path: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = ALTERNATING
    random_model("qwen2").save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def said(*contents: str, roles: tuple[str, ...] = ("user",)) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def file_with_bad_rows(path: Path, columns: tuple[str, ...]) -> Path:
    """Eight rows: the fourth is refused by the template, the sixth does not end with the user, the last is too long."""
    prompts = [said(f"Question {i}?") for i in range(8)]
    prompts[3] = said("one", "two", "three", "four", roles=("user", "assistant", "assistant", "user"))
    prompts[5] = said("first", "second", roles=("user", "assistant"))
    prompts[7] = said("long" * 500)
    table: dict[str, Any] = {"prompt": prompts, **{name: ["Yes."] * 8 for name in columns}}
    if "rejected" in columns:
        table["rejected"] = ["No."] * 8
    pq.write_table(pa.table(table), path)
    return path


@pytest.mark.parametrize(
    ("main", "columns"),
    [(dpo.main, ("chosen", "rejected")), (sft.main, ("completion",)), (reward_model.main, ("chosen", "rejected"))],
    ids=["dpo", "sft", "reward_model"],
)
def test_every_row_is_checked_before_a_run_begins(
    main: Any,
    columns: tuple[str, ...],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = file_with_bad_rows(tmp_path / "data.parquet", columns)
    model = alternating_model(tmp_path / "model", tokenizer)
    rate = ["--learning-rate", "1e-5", "--steps", "1", "--batch-size", "2"]
    words = ["--data", str(data), "--model", model, "--output-dir", str(tmp_path / "runs"), *rate]
    words += ["--held-out", "1"] if main is reward_model.main else ["--eval-episodes", "0"]
    assert main(words) == 2
    assert "Column 'prompt', row 5: expected messages of which the last is the user's" in capsys.readouterr().err
    table = pq.read_table(data)
    pq.write_table(pa.concat_tables([table.slice(0, 5), table.slice(6)]), data)
    assert main(words) == 2
    assert "row 3: The chat template of" in (message := capsys.readouterr().err)
    assert "Roles must alternate." in message
    pq.write_table(pa.concat_tables([table.slice(0, 3), table.slice(4, 1), table.slice(6)]), data)
    if main is not reward_model.main:  # a reward model reads 2,048 tokens, none of which is cut off by an option
        assert main([*words, "--context-length", "200"]) == 2
        assert "row 5: An example of " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    pq.write_table(table, data)
    context = [] if main is reward_model.main else ["--context-length", "200"]
    assert main([*words, *context, "--skip-bad-rows"]) == 0
    left_out = 2 if main is reward_model.main else 3
    assert f"{left_out} of 8 rows are left out, the first since: " in capsys.readouterr().out


def test_options_out_of_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert dpo.main(["--beta", "0"]) == 2
    assert "beta: Input should be greater than 0" in capsys.readouterr().err
    assert dpo.main(["--label-smoothing", "0.5"]) == 2
    assert "label_smoothing: Input should be less than 0.5" in capsys.readouterr().err


def test_a_row_that_the_templates_own_words_make_too_long_is_named_before_a_run_begins(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ 'You are a helpful assistant. ' * 20 }}" + ALTERNATING
    random_model("qwen2").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    pq.write_table(pa.table({"prompt": ["x"], "completion": ["y"]}), tmp_path / "data.parquet")
    words = ["--data", str(tmp_path / "data.parquet"), "--model", str(tmp_path / "model"), "--context-length", "300"]
    assert sft.main([*words, "--eval-episodes", "0", "--output-dir", str(tmp_path / "runs")]) == 2
    assert "row 0: An example of " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
