"""The files for clusters are well formed, and the commands in them have only options that exist."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmgym.config import parse_command_line
from llmgym.config.sections import OnlineConfig
from llmgym.train.agent import Agent

CLUSTER = Path(__file__).parent.parent / "examples" / "cluster"
NAMES = ("README.md", "ray-cluster.yaml", "rayjob.yaml", "slurm.sh")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text(encoding="utf-8")))


def rayjob() -> dict[str, Any]:
    job: dict[str, Any]
    (job,) = [one["spec"] for one in documents("rayjob.yaml") if one["kind"] == "RayJob"]
    return job


def commands_of(text: str) -> list[list[str]]:
    """Return the words after ``python`` of each command of llmgym, without what ends it in a shell."""
    text = re.sub(r"\\\n\s*", " ", text).replace(' "$@" &', "").replace('"$workers"', "7")  # what slurm.sh computes
    found = re.findall(r"python (?:-u )?-m (llmgym\.agents\.[^'`\n]+)", text)
    return [shlex.split(one) for one in found]


def all_commands() -> list[tuple[str, list[str]]]:
    texts = {name: (CLUSTER / name).read_text(encoding="utf-8") for name in NAMES}
    texts["rayjob.yaml"] = rayjob()["entrypoint"]
    return [(name, command) for name, text in texts.items() for command in commands_of(text)]


def parsed(command: list[str]) -> OnlineConfig:
    module, *words = command
    found = vars(importlib.import_module(module)).values()
    (agent,) = [one for one in found if isinstance(one, type) and issubclass(one, Agent) and one.__module__ == module]
    config = parse_command_line(agent.config_class, words, module)
    assert isinstance(config, OnlineConfig)
    return config


def test_each_way_to_start_a_run_is_among_the_commands() -> None:
    assert {name for name, _ in all_commands()} == {"README.md", "rayjob.yaml", "slurm.sh"}


@pytest.mark.parametrize("command", [command for _, command in all_commands()])
def test_a_command_has_options_that_exist_and_goes_on_after_an_interruption(command: list[str]) -> None:
    config = parsed(command)
    assert config.saving.resume
    assert config.cluster.ray_address == "auto"
    assert config.cluster.rollout_workers > 0


def test_the_launchers_file_has_the_form_that_ray_asks_for() -> None:
    ray = pytest.importorskip("ray")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    (config,) = documents("ray-cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["provider"]["type"] != "local" or {"head_ip", "worker_ips"} <= config["provider"].keys()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "workers": 2}, schema)


def test_the_workers_of_the_rayjob_fit_its_pods() -> None:
    job = rayjob()
    (command,) = commands_of(job["entrypoint"])
    cluster = parsed(command).cluster
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]  # the run asks for all of them at once
    (container,) = group["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert cluster.rollout_workers * cluster.worker_gpus <= group["replicas"] * limits["nvidia.com/gpu"]
    assert cluster.rollout_workers * cluster.worker_cpus <= group["replicas"] * int(limits["cpu"])


def test_the_rayjob_writes_to_a_volume_that_outlives_it() -> None:
    job = rayjob()
    (command,) = commands_of(job["entrypoint"])
    config = parsed(command)
    (claim,) = [one["metadata"]["name"] for one in documents("rayjob.yaml") if one["kind"] == "PersistentVolumeClaim"]
    spec = job["rayClusterSpec"]
    for template in (spec["headGroupSpec"]["template"], spec["workerGroupSpecs"][0]["template"]):
        (container,) = template["spec"]["containers"]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        volumes = {one["name"]: one for one in template["spec"]["volumes"]}
        assert set(mounts.values()) == volumes.keys()
        volume = volumes[mounts[str(config.run.output_dir)]]
        assert volume["persistentVolumeClaim"]["claimName"] == claim


def test_each_file_has_ray_ask_for_a_token() -> None:
    assert rayjob()["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "export RAY_AUTH_MODE=token" in (CLUSTER / "slurm.sh").read_text(encoding="utf-8")
    (config,) = documents("ray-cluster.yaml")
    starts = [one for kind in ("head", "worker") for one in config[f"{kind}_start_ray_commands"] if "ray start" in one]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in one for one in starts)


def test_the_slurm_job_ends_by_itself_before_its_time_limit() -> None:
    script = (CLUSTER / "slurm.sh").read_text(encoding="utf-8")
    (command,) = commands_of(script)
    config = parsed(command)
    (limit,) = re.findall(r"^#SBATCH --time=(\d+):(\d+):(\d+)$", script, re.MULTILINE)
    hours, minutes, seconds = map(int, limit)
    assert config.budget.seconds is not None
    assert config.budget.seconds <= 3600 * hours + 60 * minutes + seconds - 600


def test_the_slurm_script_is_a_shell_script() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    subprocess.run([bash, "-n", str(CLUSTER / "slurm.sh")], check=True)


def test_the_files_have_the_version_of_ray_that_was_tested() -> None:
    constraints = (CLUSTER.parent.parent / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ray==(.+)$", constraints, re.MULTILINE)
    assert rayjob()["rayClusterSpec"]["rayVersion"] == version
    assert f"rayproject/ray:{version}-" in (CLUSTER / "README.md").read_text(encoding="utf-8")
