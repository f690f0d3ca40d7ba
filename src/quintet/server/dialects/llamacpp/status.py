"""/props, /slots and /lora-adapters: what the server is, and who sits where.

A paged engine has no slots: its seats are shared by whoever runs.  The list has one entry per seat,
and as many of them are processing as requests run, so that sums over it are true.
"""

from __future__ import annotations

from typing import Any

from quintet import __version__
from quintet.server.dialects.llamacpp.bodies import CompletionBody
from quintet.server.dialects.llamacpp.params import sampling_params, settings
from quintet.server.served_model import ServedModel


def props(model: ServedModel) -> dict[str, Any]:
    """The body of GET /props."""
    engine, tokenizer = model.engine, model.engine.tokenizer
    templates = tokenizer.chat_templates
    template = templates.get("default", "")
    whole = {
        "default_generation_settings": {
            "id": 0,
            "n_ctx": engine.limits.max_model_len,
            "speculative": False,
            "is_processing": False,
            "params": default_settings(),
        },
        "total_slots": num_seats(model),
        "model_alias": model.name,
        "model_path": model.name,  # never a path of this machine
        "modalities": {"vision": False, "audio": False, "video": False},
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": True,
        "chat_template": template,
        "chat_template_caps": {
            "supports_tools": "tools" in template,
            "supports_tool_calls": "tool_calls" in template,
            "supports_system_role": "system" in template,
            "supports_parallel_tool_calls": "tool_calls" in template,
        },
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "build_info": f"quintet-{__version__}",
        "is_sleeping": False,
    }
    if "tool_use" in templates:
        whole["chat_template_tool_use"] = templates["tool_use"]
    return whole


def slots(model: ServedModel) -> list[dict[str, Any]]:
    """The body of GET /slots."""
    num_running = model.engine.stats().num_running
    return [
        {
            "id": index,
            "n_ctx": model.engine.limits.max_model_len,
            "speculative": False,
            "is_processing": index < num_running,
        }
        for index in range(num_seats(model))
    ]


def num_seats(model: ServedModel) -> int:
    """How many requests may run in one step."""
    return model.engine.limits.max_num_seqs


def default_settings() -> dict[str, Any]:
    """What acts in a request that sets nothing."""
    body = CompletionBody(prompt="")
    return settings(body, sampling_params(body, encode=lambda text: []))
