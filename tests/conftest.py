"""What holds for every test."""

from __future__ import annotations

import os

# Before any test imports a library that reads them: no test may reach the network, and a
# tokenizer must not warn when a test forks.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
