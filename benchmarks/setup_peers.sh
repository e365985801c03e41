#!/usr/bin/env bash
# Makes the peers' environments in benchmarks/.peers, a few minutes and 5 GB: setup_peers.sh [trl] [sglang] [gem]
# Each holds a Python of its own and environment.json, the variables that its processes need.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
PEERS=benchmarks/.peers

install() { # of an environment, with the versions that are tested together
    "$PEERS/$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
}

begin() {
    "$PYTHON" -m venv --clear "$PEERS/$1"
    install "$1" -c constraints.txt torch # first: nothing below pulls in another build of it
    install "$1" -c constraints.txt -e .
}

trl() { # for transformers' continuous batching, too, which asks psutil for the memory
    begin trl
    install trl -c constraints.txt trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 psutil
    echo '{}' > "$PEERS/trl/environment.json"
}

sglang() { # on a CPU, as the tests run it
    begin sglang
    install sglang --no-deps sglang==0.5.21
    install sglang --no-deps -r tests/sglang_cpu/requirements.txt
    echo "{\"PYTHONPATH\": \"$PWD/tests/sglang_cpu\", \"SGLANG_USE_CPU_ENGINE\": \"1\"}" > "$PEERS/sglang/environment.json"
}

gem() { # which has llmgym beside it: both step their environments in one process, without torch
    "$PYTHON" -m venv --clear "$PEERS/gem"
    # It asks for versions of its own of some that are tested together with llmgym.
    install gem -c <(grep -v "reasoning-gym\|math\|latex" constraints.txt) gem-llm==0.1.0 gymnasium lazy-loader pyarrow pydantic PyYAML rich tyro
    install gem --no-deps -e .
    echo '{}' > "$PEERS/gem/environment.json"
}

[ $# -gt 0 ] || set -- trl sglang gem
for peer; do "$peer"; done
