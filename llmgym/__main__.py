"""``python -m llmgym``, which is the console script ``llmgym``."""

import sys

from llmgym.cli import main

sys.exit(main())
