"""What a saved policy says of a text, asked one token at a time: an oracle for whatever reads whole texts at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tokenrl_cli.data.batching import source_batch
from tokenrl_cli.run import assembly, checkpoint


def policy_of(place: Path, **decode: Any) -> tuple[Any, Any]:
    """The policy of a checkpoint and what it generates with, `decode` in place of the checkpoint's own values."""
    saved = checkpoint.load(checkpoint.find(place))
    config = saved.config | {"decode": saved.config["decode"] | decode}
    task = assembly.generation_task_of(config, [], torch.device("cpu"), torch.float32, 7, saved.tokenizer_dir)
    return assembly.policy_of(saved, config, [], task), task


@torch.no_grad()
def logprobs(policy: Any, task: Any, source: str, text: str) -> list[float]:
    """The log-probability of each token of `text`, EOS included, in nats."""
    batch = source_batch([source], task.source_reader, 64)
    state, previous, found = policy.start(batch.source, batch.source_mask), None, []
    for token in [*task.tokenizer.encode(text), task.tokenizer.eos_id]:
        output, state = policy.step(state, previous)
        found.append(float(output.logits[0, 0].double().log_softmax(-1)[token]))
        previous = torch.tensor([token])
    return found
