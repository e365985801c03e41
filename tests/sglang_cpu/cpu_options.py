"""The arguments with which SGLang runs on a CPU; README.md says what else it takes."""

from typing import Any

CPU: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_overlap_schedule": True,
    "disable_cuda_graph": True,
    "skip_server_warmup": True,
    "sleep_on_idle": True,  # an idle scheduler would poll, and take a core from the test that runs
    "max_total_tokens": 20000,
}
