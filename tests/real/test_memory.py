"""The memory that a run says it needs is about what it uses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# A process of its own: the peak of this one would be that of all tests before.
RUN = """
import json, resource, sys
from llmgym.agents import GRPO

small = {"prompts_per_step": 8, "group_size": 4, "max_tokens": 24, "eval_episodes": 0}
agent = GRPO(env="AIOpsTriage", model=sys.argv[1], output_dir=sys.argv[2], **small)
needs = agent.trainer.student.needs(agent.trainer.learner)
agent.train(steps=1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([needs.held + sum(needs.to_come.values()), peak]))
"""


def test_the_memory_of_a_step_is_within_a_quarter_of_what_was_said(real_model: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", RUN, str(real_model), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said, peak = json.loads(done.stdout.splitlines()[-1])
    assert peak == pytest.approx(said, rel=0.25)
