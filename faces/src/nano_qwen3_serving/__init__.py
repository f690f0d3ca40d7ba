"""The interface of nano-qwen3-serving on top of Quintet."""
