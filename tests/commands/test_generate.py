"""`tokenrl generate`: what it decodes is what `tokenrl eval` scored, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.running import TINY, tokenrl, train
from tokenrl_cli.dataset.sequence_task import SequenceTask

SIZES = ["model.width=16", "model.heads=2", "model.feedforward=32", "model.layers=2"]
MODELS = {
    **{name: ["model.embedding=16", "model.hidden=24"] for name in ("rnn", "gru", "lstm")},
    **dict.fromkeys(("gpt", "transformer"), SIZES),
}
DECODES = {"greedy": ["decode=greedy"], "beam": ["decode=beam", "decode.beam_size=3"]}


def sources() -> list[str]:
    """Of the test split that TINY evaluates."""
    data = SequenceTask("reverse", 5, 2, 4, 0.0, 1, 200, 16, 64, "truncate")
    return [data.example("test", i).source for i in range(16)]


@pytest.mark.parametrize("model", MODELS)
def test_generate_decodes_what_eval_decodes_in_any_batch_with_dropout_in_the_model(tmp_path: Path, model: str) -> None:
    run, lines = tmp_path / "run", tmp_path / "source.txt"
    plain = [each for each in TINY if not each.startswith("model")]
    steps = ["trainer.warm_start_steps=60", "trainer.steps=2", "trainer.eval_every=60"]
    rate = ["warm_start.optimizer.lr=8e-3", "warm_start.optimizer.schedule.warmup_steps=0"]  # quick: few steps
    chosen = [f"model={model}", *MODELS[model], "model.dropout=0.3", *steps, *rate]
    assert train(run, *plain, *chosen, tiny=False) == 0
    lines.write_text("".join(f"{source}\n" for source in sources()), "utf-8")
    for name, decode in DECODES.items():
        assert tokenrl("eval", f"ckpt={run}", f"out={tmp_path / 'eval'}", *decode) == 0
        folder = next(path for path in (tmp_path / "eval").iterdir() if name in path.name)
        scored = (folder / "hypotheses.txt").read_text("utf-8")
        assert len(set(scored.splitlines())) > 1, "a model that says one thing for everything shows no difference"
        for size in (3, 64):
            said = tmp_path / f"{name}-{size}.txt"
            given = [f"ckpt={run}", f"input={lines}", f"output={said}", f"batch_size={size}", *decode]
            torch.manual_seed(size)  # of the global generator, which dropout would draw from
            assert tokenrl("generate", *given) == 0
            assert said.read_text("utf-8") == scored, (name, size)
