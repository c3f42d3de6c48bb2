"""The same for every architecture: one step at a time or all at once, alone or in company, a model says the same."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from tests.model import contract
from tests.model.contract import GREEDY, LIMIT, ragged, stepwise
from tokenrl_cli.episodes.sampling import generate
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.model.gpt import Gpt
from tokenrl_cli.model.recurrent import Recurrent, Window
from tokenrl_cli.model.speech import SpecAugment, SpeechRecurrent, SpeechTransformer, spec_augmented
from tokenrl_cli.model.transformer import Transformer


class Tokens:
    """Seven tokens; EOS is 0."""

    size, eos_id, unknown_id = 7, 0, None


TOKENS = Tokens()
SIZES: dict[str, Any] = {"width": 16, "heads": 2, "feedforward": 32, "layers": 2, "tied": True}


def recurrent(cell: str, dropout: float = 0.0, layers: int = 1, tied: bool = True) -> nn.Module:
    return Recurrent(TOKENS, TOKENS, cell, 12, 16, layers, dropout, tied, False)  # type: ignore[arg-type]


class Heard(nn.Module):
    """A model for speech that is given token ids: each is five frames of its own, so that it keeps the contract that
    all models share."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.width = model, model.width
        table = torch.randn(7, 5, FRAME, generator=torch.Generator().manual_seed(4))
        self.register_buffer("table", table)

    def frames(self, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.table[source].flatten(1, 2), mask.repeat_interleave(5, 1)

    def forward(self, source: Tensor, mask: Tensor, actions: Tensor, source_row: Tensor | None = None) -> Any:
        return self.model(*self.frames(source, mask), actions, source_row)

    def start(self, source: Tensor, mask: Tensor) -> Any:
        return self.model.start(*self.frames(source, mask))

    def step(self, state: Any, previous: Tensor | None) -> Any:
        return self.model.step(state, previous)


FRAME = 3
FRAMES: Any = SimpleNamespace(width=FRAME)
AUGMENT = SpecAugment(2, 3, 1, 1)


def speech_lstm(dropout: float, window: bool) -> nn.Module:
    return Heard(SpeechRecurrent(TOKENS, FRAMES, "lstm", 2, 12, 16, 1, dropout, True, window, AUGMENT))  # type: ignore[arg-type]


def speech_transformer(dropout: float) -> nn.Module:
    return Heard(SpeechTransformer(TOKENS, FRAMES, LIMIT, 2, dropout=dropout, spec_augment=AUGMENT, **SIZES))


MODELS = {
    "speech_lstm": lambda dropout=0.0: speech_lstm(dropout, False),
    "speech_lstm_window": lambda dropout=0.0: speech_lstm(dropout, True),
    "speech_transformer": lambda dropout=0.0: speech_transformer(dropout),
    "rnn": lambda dropout=0.0: recurrent("rnn", dropout),
    "gru": lambda dropout=0.0: recurrent("gru", dropout, layers=2, tied=False),
    "lstm": lambda dropout=0.0: recurrent("lstm", dropout, layers=2),
    "transformer": lambda dropout=0.0: Transformer(TOKENS, TOKENS, LIMIT, dropout=dropout, **SIZES),
    "gpt": lambda dropout=0.0: Gpt(TOKENS, TOKENS, LIMIT, dropout=dropout, **SIZES),
}
every = pytest.mark.parametrize("name", MODELS)


def built(name: str, dropout: float = 0.0, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = MODELS[name](dropout)
    for parameter in model.parameters():  # away from symmetric starts
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_one_step_at_a_time_is_the_teacher_forced_pass(name: str, dtype: torch.dtype, tolerance: float) -> None:
    contract.check_steps(built(name).to(dtype), tolerance)


@every
def test_a_row_alone_says_what_it_says_in_a_ragged_batch(name: str) -> None:
    contract.check_company(built(name))


@every
def test_no_output_depends_on_its_own_or_a_later_action(name: str) -> None:
    contract.check_order(built(name), tuple(range(6)))


@every
def test_repeating_and_reordering_a_state_is_repeating_and_reordering_its_rows(name: str) -> None:
    contract.check_states(built(name))


@every
def test_rows_that_share_a_source_say_and_learn_the_same_as_with_a_copy_each_and_it_is_read_once(name: str) -> None:
    """Rows in any order, one source without any; nothing that is as wide as the source has more rows than sources."""
    model, (source, mask, actions, _) = built(name).double(), ragged()
    row = torch.tensor([2, 0, 0, 3, 2, 2])
    actions = torch.cat([actions, (actions[:2] + 1) % 7])

    def learned(*given: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        model.zero_grad()
        output = model(*given)
        output.logits.log_softmax(-1).square().mean().backward()
        return output.logits, output.hidden, [parameter.grad.clone() for parameter in model.parameters()]

    wanted = learned(source[row], mask[row], actions)
    read: set[int] = set()
    wide = 5 if name.startswith("speech") else 4  # 20 frames, halved twice
    for part in model.modules():
        if not list(part.children()):
            part.register_forward_hook(
                lambda _, given, __: read.add(len(given[0])) if given[0].shape[1] == wide else None
            )
    logits, hidden, gradients = learned(source, mask, actions, row)
    assert read == {4}
    assert (logits - wanted[0]).abs().max() < 1e-12
    assert (hidden - wanted[1]).abs().max() < 1e-12
    for one, other in zip(gradients, wanted[2], strict=True):
        assert (one - other).abs().max() < 1e-12


@every
@torch.no_grad()
def test_sources_that_are_all_empty_give_finite_numbers(name: str) -> None:
    model = built(name)
    source, mask, actions, _ = ragged()
    nothing = torch.zeros_like(mask)
    assert model(source, nothing, actions).logits.isfinite().all()
    assert stepwise(model, source, nothing, actions).isfinite().all()


@every
def test_an_empty_source_says_the_same_in_any_company_and_half_precision_is_finite(name: str) -> None:
    contract.check_empty_source(built(name))


def test_no_softmax_of_the_transformer_is_empty() -> None:
    """Some attention kernels give NaN for a row that may see nothing, and NaN times 0 reaches every gradient."""
    source, mask, _, _ = ragged()
    assert built("transformer").start(source, torch.zeros_like(mask)).source_mask.any(-1).all()


@pytest.mark.parametrize("name", ["rnn", "lstm", "transformer", "gpt"])
@torch.no_grad()
def test_a_tied_output_is_the_target_embedding_without_the_row_of_begin(name: str) -> None:
    """Trap 42: still so after the weights were saved and loaded."""
    model = built(name, seed=1)
    model.load_state_dict(load(save(built(name).state_dict())))
    source, mask, actions, _ = ragged()
    hidden = model(source, mask, actions).hidden
    rows = model.embedding.weight
    assert rows.shape[0] == 8
    assert not any(key.startswith("output") for key in model.state_dict())
    linear = model._project(hidden) - model._project(torch.zeros_like(hidden))
    assert torch.allclose(linear, hidden @ rows[:7].T, atol=1e-5)
    rows[:7] *= 2  # one tensor: what changes the input changes the output
    assert torch.allclose(model._project(hidden) - model._project(torch.zeros_like(hidden)), 2 * linear, atol=1e-5)


@every
def test_dropout_acts_in_training_mode_alone(name: str) -> None:
    """Traps 13 and 27: two passes in evaluation mode are the same, greedy decoding too."""
    model = built(name, dropout=0.5)
    source, mask, actions, _ = ragged()
    assert torch.equal(model(source, mask, actions).logits, model(source, mask, actions).logits)
    said = [generate(model, source, mask, GREEDY, 1, 0, torch.Generator()).actions for _ in range(2)]
    assert torch.equal(*said)
    model.train()
    assert not torch.equal(model(source, mask, actions).logits, model(source, mask, actions).logits)


@pytest.mark.parametrize(
    ("name", "places"),
    [("rnn", 4), ("gru", 6), ("lstm", 6), ("transformer", 2 + 2 * 2 + 2 * 3), ("gpt", (1 + 2) + (1 + 2 * 2))],
)
def test_dropout_acts_at_every_place_that_has_it(name: str, places: int) -> None:
    """Recurrent: both embeddings, between encoder layers, after each decoder layer, before the output. Transformers:
    embeddings, and what every attention and feed-forward layer adds, but for the source in the last layer of gpt: of it
    nothing but keys and values is used."""
    model, (source, mask, actions, _), widths = built(name, dropout=0.5).train(), ragged(), list[int]()

    def seen(part: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        assert bool(((result == 0) & (given[0] != 0)).any())
        widths.append(result.shape[1])

    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(seen)
    model(source, mask, actions)
    assert len(widths) == places


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_layers_stay_differentiable_in_evaluation_mode(cell: str) -> None:
    """RL takes gradients in evaluation mode, and cuDNN refuses the backward pass of a layer that is in it."""
    model = recurrent(cell, dropout=0.5, layers=2).eval()
    layers = [part for part in model.modules() if isinstance(part, nn.RNNBase)]
    assert len(layers) == 6
    assert all(layer.training and layer.dropout == 0 for layer in layers)
    assert not model.training
    assert not any(part.training for part in model.modules() if isinstance(part, nn.Dropout))


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gradients_flow_in_evaluation_mode_on_a_gpu(name: str) -> None:
    model = built(name).cuda()
    source, mask, actions, response = (part.cuda() for part in ragged())
    logprobs = model(source, mask, actions).logits.log_softmax(-1)
    logprobs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)[response].sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@every
def test_one_beam_is_greedy(name: str) -> None:
    contract.check_beam(built(name))


@every
def test_every_parameter_learns_and_padding_teaches_nothing(name: str) -> None:
    contract.check_gradients(built(name), 1e-5)


@every
def test_weights_are_saved_once_and_restored(name: str) -> None:
    """Trap 42: a tied output is the embedding itself, so safetensors has nothing shared to refuse."""
    model, other = built(name), built(name, seed=1)
    other.load_state_dict(load(save(model.state_dict())))
    source, mask, actions, _ = ragged()
    assert torch.equal(model(source, mask, actions).logits, other(source, mask, actions).logits)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", [each if each in ("transformer", "gpt") else pytest.param(each, marks=pytest.mark.slow) for each in MODELS]
)
def test_every_architecture_learns_to_reverse(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().train()
    optimizer, draws = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(0)
    for _ in range(150):
        source = torch.randint(1, 7, (32, 4), generator=draws)
        target = torch.cat([source.flip(1), torch.zeros(32, 1, dtype=torch.int64)], 1)
        logits = model(source, torch.ones_like(source, dtype=torch.bool), target).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.3 < math.log(6)


def test_heads_that_cannot_share_the_width_are_named() -> None:
    with pytest.raises(UserError, match=r"^width: must be a multiple of twice the 3 heads"):
        Transformer(TOKENS, TOKENS, LIMIT, **({"dropout": 0.0} | SIZES | {"heads": 3}))


def test_gpt_refuses_two_tokenizers() -> None:
    with pytest.raises(UserError, match="source_tokenizer"):
        Gpt(TOKENS, Tokens(), LIMIT, dropout=0.0, **SIZES)


def test_masks_of_spec_augment_hide_stretches_of_time_and_bands_of_frequency_and_no_more_than_half() -> None:
    """Of 500 recordings of 8 and 3 frames: at most 3 hidden frames in a row of the first, one of the second, none in
    the padding; bands of one or two numbers over all frames; every place is hidden sometimes."""
    torch.manual_seed(0)
    mask = (torch.arange(8) < torch.tensor([[8], [3]])).repeat(500, 1)
    frames = torch.ones(1000, 8, 5)
    in_time = spec_augmented(frames, mask, SpecAugment(1, 3, 0, 0)) == 0
    assert (in_time.all(-1) == in_time.any(-1)).all()
    hidden = in_time.all(-1)
    assert set(hidden[::2].sum(1).tolist()) == {0, 1, 2, 3}
    assert set(hidden[1::2].sum(1).tolist()) == {0, 1}
    assert not hidden[~mask].any()
    assert hidden[mask & (torch.arange(1000) % 2 == 0).unsqueeze(1)].view(500, 8).any(0).all()
    runs = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1) + hidden[:, 0]
    assert int(runs.max()) == 1
    bands = spec_augmented(frames, mask, SpecAugment(0, 0, 1, 2)) == 0
    assert (bands.all(1) == bands.any(1)).all()
    assert set(bands.all(1).sum(1).tolist()) == {0, 1, 2}
    assert bands.all(1).any(0).all()
    both = spec_augmented(frames, mask, SpecAugment(2, 3, 2, 2)) == 0
    assert (both == (both.all(-1, keepdim=True) | both.all(1, keepdim=True))).all()


def test_a_window_moves_by_the_sum_of_its_strides_and_is_a_gaussian_around_its_place() -> None:
    torch.manual_seed(0)
    window = Window(5).double().requires_grad_(False)
    hidden, start = torch.randn(2, 3, 5, dtype=torch.float64), torch.tensor([0.0, 2.5])
    nn.init.normal_(window.stride.weight)
    added, after = window(hidden, start.double(), 7)
    assert added.shape == (2, 3, 7)
    for row in range(2):
        place = float(start[row])
        for t in range(3):
            place += math.log1p(math.exp(float(window.stride(hidden[row, t]))))
            for s in range(7):
                expected = -((s - place) ** 2) / (2 * Window.WIDTH**2)
                assert float(added[row, t, s]) == pytest.approx(expected, rel=1e-6)
        assert float(after[row]) == pytest.approx(place)
    fresh = Window(5).requires_grad_(False)
    _, places = fresh(torch.randn(4, 1, 5), torch.zeros(4), 3)
    assert places.tolist() == pytest.approx([Window.STEP] * 4)
