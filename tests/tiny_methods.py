"""The methods around an encoder, of sizes that suit a tiny one."""

from typing import Any

METHODS: dict[str, Any] = {
    "lora": {"name": "lora", "rank": 4},
    "dora": {"name": "dora", "rank": 4},
    "adalora": {"name": "adalora", "rank": 2, "start_rank": 4, "every": 1},
    "ia3": {"name": "ia3"},
    "bottleneck": {"name": "bottleneck", "width": 8},
    "prefix": {"name": "prefix", "tokens": 3},
    "prompt": {"name": "prompt", "tokens": 3},
    "p_tuning": {"name": "p_tuning", "tokens": 3},
}
BEGIN_ELSEWHERE = ("prefix", "prompt", "p_tuning")
"""Their tokens begin as words that stand before the text."""
