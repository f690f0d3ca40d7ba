"""
Trains the demo model and writes checkpoints.

    python tools/train_demo/train.py --minutes 65 --threads 2 --out build/demo
    python tools/train_demo/export.py build/demo/model.pt src/quintet/hub/data/demo.gguf
    python tools/train_demo/evaluate.py src/quintet/hub/data/demo.gguf

Needs torch >= 2.9 (its Muon optimiser).  The text is generated as training goes; seeds are fixed,
but the number of steps follows the clock, so two runs differ in the last digits.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

# One core per worker: two workers that meet once a step keep going when other programs take a
# core, where threads that meet inside every operation would wait for each other all the time.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from batches import Batch, batches
from model import DemoConfig, DemoModel, attention_mask
from torch import nn

from tokenizer import load_tokenizer, train_tokenizer

ROW_LENGTH = 256
LONG_LENGTH = 768  # the longest chats have some 650 tokens
PART_TOKENS = 1024  # what a worker takes at a time
CHECKPOINT_INTERVAL_S = 240.0


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)

    tokenizer_path = arguments.out / "tokenizer.json"
    if not tokenizer_path.exists():
        train_tokenizer(arguments.seed).save(str(tokenizer_path))
    tokenizer = load_tokenizer(tokenizer_path)

    model = DemoModel(DemoConfig())
    initialise(model)
    start_tokens = 0
    if arguments.resume:
        saved = torch.load(arguments.resume, weights_only=True)
        model.load_state_dict(saved["model"])
        start_tokens = saved["num_tokens"]
    feed = batches(
        tokenizer, arguments.seed + 1 + start_tokens, row_length=ROW_LENGTH,
        long_length=LONG_LENGTH, batch_tokens=PART_TOKENS,
    )  # fmt: skip
    Trainer(model, arguments, start_tokens).run(feed)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--minutes", type=float, default=65.0, help="wall-clock budget")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="a multiple of 1024")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=4e-3)
    parser.add_argument("--resume", type=Path, help="continue from this checkpoint's weights")
    return parser.parse_args()


class Trainer:
    """
    Float32 weights, bfloat16 arithmetic; Muon for the matrices, AdamW for embedding and norms.

    The learning rate warms up, stays for a quarter of the time and then falls to zero: with batches
    this small, a high rate soon does no more than shake the weights.
    Muon: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(self, model: DemoModel, arguments: argparse.Namespace, num_tokens: int) -> None:
        self.model = model
        self.arguments = arguments
        self.num_tokens = num_tokens
        self.budget_s = arguments.minutes * 60.0
        self.pool = ThreadPoolExecutor(arguments.threads)
        # The arithmetic runs on bfloat16 copies: faster than autocast, which converts every use.
        self.copies = [DemoModel(model.config).bfloat16() for _ in range(arguments.threads)]
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(share, lr=arguments.muon_lr, momentum=0.95, weight_decay=0.01)
            for share in (matrices[::2], matrices[1::2])
        ]
        self.optimizers.append(
            torch.optim.AdamW(others, lr=arguments.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        )
        self.base_rates = [arguments.muon_lr, arguments.muon_lr, arguments.adam_lr]

    def run(self, feed: Iterator[Batch]) -> None:
        log = (self.arguments.out / "log.jsonl").open("a", encoding="utf-8")
        started = last_saved = last_logged = time.monotonic()
        losses: list[float] = []
        step, first_token = 0, self.num_tokens
        num_parts = self.arguments.batch_tokens // PART_TOKENS
        while parts := list(islice(feed, num_parts)):
            elapsed_s = time.monotonic() - started
            progress = elapsed_s / self.budget_s
            if progress >= 1.0:
                break
            losses.append(self.step(parts, rate_at(step, progress)))
            step += 1
            self.num_tokens += sum(part.tokens.numel() for part in parts)
            now = time.monotonic()
            if now - last_logged > 20.0:
                rate = (self.num_tokens - first_token) / (now - started)
                entry = {"minutes": round(elapsed_s / 60, 2), "step": step,
                         "tokens": self.num_tokens, "loss": round(sum(losses) / len(losses), 4),
                         "tokens_per_s": round(rate)}  # fmt: skip
                print(json.dumps(entry), flush=True)
                log.write(json.dumps(entry) + "\n")
                log.flush()
                last_logged, losses = now, []
            if now - last_saved > CHECKPOINT_INTERVAL_S:
                self.save()
                last_saved = now
        self.save()

    def step(self, parts: list[Batch], rate: float) -> float:
        """One update from the parts, which the workers take as they become free."""
        for copy in self.copies:
            copy_weights(self.model, copy)
        waiting = list(parts)
        total_weight = sum(float(part.weights.sum()) for part in parts)
        loss = sum(self.pool.map(lambda copy: self.work(copy, waiting, total_weight), self.copies))
        sum_gradients(self.copies, self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, base_rate in zip(self.optimizers, self.base_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base_rate * rate
        list(self.pool.map(lambda optimizer: optimizer.step(), self.optimizers))
        return loss

    def work(self, copy: DemoModel, waiting: list[Batch], total_weight: float) -> float:
        """Forward and backward over parts until none is left; its share of the loss."""
        total = 0.0
        while True:
            try:
                part = waiting.pop()
            except IndexError:
                return total
            logits = copy(part.tokens, attention_mask(part.samples).bfloat16()).float()
            losses = nn.functional.cross_entropy(
                logits.flatten(0, 1), part.targets.flatten(), reduction="none"
            )
            loss = (losses * part.weights.flatten()).sum() / total_weight
            loss.backward()
            total += float(loss.detach())

    def save(self) -> None:
        path = self.arguments.out / "model.pt"
        state = {"model": self.model.state_dict(), "config": asdict(self.model.config),
                 "num_tokens": self.num_tokens}  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


@torch.no_grad()
def copy_weights(model: DemoModel, copy: DemoModel) -> None:
    for wide, narrow in zip(model.parameters(), copy.parameters(), strict=True):
        narrow.copy_(wide)
        narrow.grad = None


def sum_gradients(copies: list[DemoModel], model: DemoModel) -> None:
    """A copy that found no part to work on has no gradient."""
    for wide, *narrow in zip(model.parameters(), *(c.parameters() for c in copies), strict=True):
        wide.grad = sum(n.grad.float() for n in narrow if n.grad is not None)


def rate_at(step: int, progress: float) -> float:
    """Share of the base learning rate: linear warm-up, plateau, linear fall from a quarter on."""
    warm = min(1.0, (step + 1) / 50)
    return warm * min(1.0, max(0.0, (1.0 - progress) / 0.75))


def initialise(model: DemoModel) -> None:
    """Normal weights; what writes to the residual stream starts smaller with depth."""
    shrink = 1.0 / math.sqrt(2 * model.config.num_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = 0.02 if "embed" in name else parameter.shape[1] ** -0.5 * 0.6
            if "o_proj" in name or "down_proj" in name:
                std *= shrink
            torch.nn.init.normal_(parameter, std=std)


if __name__ == "__main__":
    main()
