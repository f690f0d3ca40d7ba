"""Where nano-qwen3-serving keeps its engine's own types; imports nothing of ours."""
