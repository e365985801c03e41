"""``python -m llmgym.cli``, which is the console script ``llmgym``."""

import sys

from llmgym.cli.script import main

sys.exit(main())
