"""Encoder-decoders that read frames of speech: strided convolutions shorten the sequence, and then comes an encoder and
a decoder that read it as they would read embedded tokens.

Padding is set to zero before every convolution, so it acts like the end of the recording: a row alone gives what it
gives in company.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import CountOrZero, Fraction, Size
from tokenrl_cli.interfaces import Features, ModelOutput, State, Tokenizer
from tokenrl_cli.model.recurrent import Recurrent
from tokenrl_cli.model.transformer import Transformer

KERNEL = 3  # frames that a convolution reads; the next one reads two frames further on
LARGEST_SHARE = 0.5  # of the frames of a recording that one mask of time may hide


@dataclass(frozen=True)
class SpecAugment:
    """How many masks hide parts of the frames in supervised stages, and how wide they are at most."""

    time_masks: CountOrZero
    time_width: CountOrZero  # frames
    frequency_masks: CountOrZero
    frequency_width: CountOrZero  # numbers of a frame, which lie next to each other


def spec_augmented(frames: Tensor, mask: Tensor, sizes: SpecAugment) -> Tensor:
    """Returns frames [N, S, F] with stretches of time and bands of frequency set to 0, those of each recording drawn
    anew (Park et al. 2019, arXiv:1904.08779, section 2, without time warping). mask [N, S] bool, True at real frames.

    A mask of time begins at t0 and is w frames long, w uniform on 0 ... `time_width` (at most half of the recording),
    t0 uniform where it fits; a mask of frequency likewise. 0 is the mean of a normalised feature. The numbers are drawn
    from torch's global generator of the device.
    """
    lengths = mask.sum(-1, keepdim=True)  # [N, 1]
    longest = (lengths * LARGEST_SHARE).long().clamp(max=sizes.time_width)
    hidden = _stretches(lengths, longest, frames.shape[1], sizes.time_masks).unsqueeze(-1)
    bands = torch.full_like(lengths, frames.shape[2])
    widest = torch.full_like(lengths, min(sizes.frequency_width, frames.shape[2]))
    hidden = hidden | _stretches(bands, widest, frames.shape[2], sizes.frequency_masks).unsqueeze(1)
    return frames.masked_fill(hidden, 0.0)


def _stretches(sizes: Tensor, longest: Tensor, width: int, count: int) -> Tensor:
    """[N, width] bool, True inside any of `count` stretches of each row, of at most `longest` [N, 1] places within its
    first `sizes` [N, 1] ones."""
    draws = torch.rand(2, len(sizes), count, device=sizes.device)
    lengths = (draws[0] * (longest + 1)).long()
    starts = (draws[1] * (sizes - lengths + 1)).long()
    place = torch.arange(width, device=sizes.device)
    inside = (place >= starts.unsqueeze(-1)) & (place < (starts + lengths).unsqueeze(-1))  # [N, count, width]
    return inside.any(1)


class Convolutions(nn.Module):
    """`layers` convolutions over time, each of stride 2 and followed by a ReLU, and a layer norm at the end."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs] + [width] * layers
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, stride=2, padding=KERNEL // 2) for before, after in pairwise(sizes)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """frames [N, S, F] and mask [N, S] bool -> vectors [N, S', D] and their mask [N, S'], where each convolution
        makes S / 2 of S, rounded up, and so of the length of each row. What padding holds changes nothing."""
        read = frames.transpose(1, 2)
        for layer in self.layers:
            read = torch.relu(layer(read * mask.unsqueeze(1)))
            mask = mask[:, ::2]
        read = self.norm(read.transpose(1, 2)) * mask.unsqueeze(-1)
        return read, mask


class SpeechModel(nn.Module):
    """p(y_t | frames, y_<t): convolutions over the frames, then an encoder and a decoder, `network`, which is built
    without a source tokenizer and reads vectors of `width` numbers."""

    def __init__(
        self, features: Features, network: Recurrent | Transformer, width: int, convolutions: int, augment: SpecAugment
    ) -> None:
        super().__init__()
        self.convolutions = Convolutions(features.width, width, convolutions)
        self.network, self.augment, self.width = network, augment, network.width

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S, F] float32 frames and
        source_mask [N, S] bool, S at least 1, actions [B, T] int64; source_row [B] int64 gives the source of each row,
        None: row b has source b, and N = B. In training mode parts of the frames are hidden (`spec_augmented`)."""
        return self.network.forward_from(*self._read(source, source_mask), actions, source_row)

    def start(self, source: Tensor, source_mask: Tensor) -> State:
        """Encodes source [N, S, F] float32 frames, S at least 1, with source_mask [N, S] bool, and returns the state of
        the network before the first token, one row for each source."""
        state: State = self.network.start_from(*self._read(source, source_mask))
        return state

    def step(self, state: Any, previous: Tensor | None) -> tuple[ModelOutput, Any]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. See the `step` of the network for whether `state`
        stays usable."""
        return self.network.step(state, previous)

    def _read(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [N, S', E] and their mask [N, S']."""
        if self.training:
            source = spec_augmented(source, source_mask, self.augment)
        read: tuple[Tensor, Tensor] = self.convolutions(source.to(self.convolutions.norm.weight.dtype), source_mask)
        return read


class SpeechRecurrent(SpeechModel):
    """Convolutions, a bidirectional recurrent encoder, and an attention decoder: see `model.recurrent.Recurrent`, whose
    encoder reads vectors of `embedding` numbers."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        features: Features,
        cell: Literal["rnn", "gru", "lstm"],
        convolutions: Size,
        embedding: Size,
        hidden: Size,
        layers: Size,
        dropout: Fraction,
        tied: bool,
        window: bool,
        spec_augment: SpecAugment,
    ) -> None:
        network = Recurrent(tokenizer, None, cell, embedding, hidden, layers, dropout, tied, window)
        super().__init__(features, network, embedding, convolutions, _sizes(spec_augment))


class SpeechTransformer(SpeechModel):
    """Convolutions and a transformer encoder-decoder: see `model.transformer.Transformer`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        features: Features,
        max_length: int,
        convolutions: Size,
        width: Size,
        heads: Size,
        feedforward: Size,
        layers: Size,
        dropout: Fraction,
        tied: bool,
        spec_augment: SpecAugment,
    ) -> None:
        network = Transformer(tokenizer, None, max_length, width, heads, feedforward, layers, dropout, tied)
        super().__init__(features, network, width, convolutions, _sizes(spec_augment))


def _sizes(given: SpecAugment | dict[str, int]) -> SpecAugment:
    """A config gives a dictionary."""
    return SpecAugment(**given) if isinstance(given, dict) else given
