"""Models of pretrained checkpoints that read speech: Whisper, and the encoders wav2vec2 and HuBERT with our decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Fraction, Size, Text
from tokenrl_cli.interfaces import Features, ModelOutput, OfExtractor, SettingError, Tokenizer, UserError
from tokenrl_cli.model.adapter import Adapter
from tokenrl_cli.model.encoder_decoder import ReadsWithEncoder, decoder_begin
from tokenrl_cli.model.pretrained import (
    Begin,
    Dtype,
    FromCheckpoint,
    begin_ids,
    found,
    generation_settings,
    ids_in_checkpoint,
    network_of,
)
from tokenrl_cli.model.recurrent import Recurrent, RecurrentState

QUIETEST, RANGE = -1.5, 2.0  # of Whisper's frames: (log10(1e-10) + 4) / 4, and 8 / 4
LIMIT = "dataset.max_source_length"


class HfSpeech(ReadsWithEncoder):
    """p(y_t | frames, y_<t) of a pretrained Whisper. The encoder reads 30 s whatever the length of a recording, and the
    decoder attends to all of it, as both were trained to; so the time for a source is always that of 30 s.

    The decoder begins with `begin`; null stands for what the checkpoint names: its start token, the language and the
    task where it knows several, and that times are not written. The constructor raises SettingError where the
    checkpoint cannot be read (see `hub.weights`), is of another kind or of another vocabulary, or where `features` are
    not those of the checkpoint. There is one architecture of this kind, so `require_contract`, which would read eight
    times 30 s, is left to the tests.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        features: Features,
        path: Text,
        dtype: Dtype,
        begin: Begin,
        recompute: bool,
        adapter: Adapter,
    ) -> None:
        place, config = found(path, "hf_speech")
        require_extractor(features, "WhisperFeatureExtractor", config.num_mel_bins)
        from transformers import AutoModelForSpeechSeq2Seq

        network = network_of(place, config, AutoModelForSpeechSeq2Seq, dtype)
        size = network.get_output_embeddings().out_features
        targets = ids_in_checkpoint(tokenizer, size, "tokenizer")
        super().__init__(network, network, [], targets, recompute, adapter, {"path": place})
        self.prepare(([], []), whisper_begin(place, begin, size), config.pad_token_id)
        self.longest = None, config.max_target_positions
        self.positions: int = config.max_source_positions  # of the encoder, each of two frames

    def _source(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The whole input of the encoder, [N, F, frames], and its outputs' mask [N, W], which is all True.

        What is not real becomes silence, as the feature extractor gives it: the floor of log10(1e-10), or 8 below the
        loudest value of the recording, before a frame x becomes (x + 4) / 4.
        """
        rows, width, frames = len(source), source.shape[1], 2 * self.positions
        if width > frames:
            problem = f"a source has {width} frames, and the checkpoint reads {frames}"
            raise UserError(LIMIT, problem, f"{LIMIT}={frames}, or cut the recordings into pieces")
        real = source_mask.unsqueeze(-1)
        loudest = source.masked_fill(~real, -torch.inf).amax((1, 2))
        silence = (loudest - RANGE).clamp(min=QUIETEST).view(-1, 1, 1)
        after = silence.expand(rows, frames - width, source.shape[2])
        whole = torch.cat([torch.where(real, source, silence), after], 1)
        return whole.transpose(1, 2), torch.ones(rows, self.positions, dtype=torch.bool, device=source.device)

    def _encode(self, ids: Tensor, seen: Tensor) -> Tensor:
        encoder = self.network.get_encoder()
        read: Tensor = encoder(ids.to(encoder.conv1.weight.dtype)).last_hidden_state
        return read

    def _attending(self, seen: Tensor) -> dict[str, Tensor]:
        return {}  # to everything

    def _own_logits(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> Tensor:
        frames, _ = self._source(source, source_mask)
        frames = frames.to(next(self.network.parameters()).dtype)
        logits = self.network(input_features=frames, decoder_input_ids=self._begun(actions), use_cache=False).logits
        return logits[:, len(self.begin) - 1 :].index_select(-1, self.theirs)  # type: ignore[no-any-return]


def whisper_begin(path: Path, begin: Begin, size: int) -> list[int]:
    """Returns the ids that the decoder of the Whisper at `path` begins with: `begin` where it is given, else the start
    token, the ids that the checkpoint forces after it or, where it knows several languages, those of the `language` and
    the `task` that it names, and the one for a text without times. Raises SettingError where it knows several languages
    and names none, and as `decoder_begin` does."""
    if begin is not None:
        return begin_ids(begin, path, size)
    named, ids = generation_settings(path), decoder_begin(path, None, size)
    forced = [each for _, each in sorted(named.get("forced_decoder_ids") or [], key=lambda pair: pair[0])]
    silent = named.get("no_timestamps_token_id")
    if named.get("is_multilingual") and (not forced or None in forced):
        language, task = named.get("language"), named.get("task") or "transcribe"
        of_language, of_task = named.get("lang_to_id") or {}, named.get("task_to_id") or {}
        forced = [of_language.get(f"<|{language}|>", of_language.get(language)), of_task.get(task)]
        if None in forced:
            example = "{here}.begin=['<|startoftranscript|>','<|en|>','<|transcribe|>','<|notimestamps|>']"
            raise SettingError("begin", "is null, and the checkpoint knows several languages", f"such as {example}")
    ids += begin_ids([each for each in forced if each is not None], path, size)
    return ids if silent is None or ids[-1] == silent else [*ids, silent]


class HfSpeechEncoder(FromCheckpoint):
    """p(y_t | waveform, y_<t) with a pretrained encoder of speech, wav2vec2 or HuBERT, and the recurrent network of
    `model.recurrent.Recurrent` with new weights: a linear layer makes `embedding` numbers of each output of the
    encoder, the bidirectional layers read these, and the attention decoder generates.

    A frame of a source is one sample. Checkpoints whose convolutions are normalised over the whole recording
    (`feat_extract_norm` "group") were trained without a mask, and what stands in the padding would change what they
    say: they read each recording by itself. Others ("layer") read the batch at once, with a mask. Masks in time
    (`apply_spec_augment`) are switched off. The constructor leaves the model in evaluation mode, and raises
    SettingError where the checkpoint cannot be read, is of another kind, or where `features` are not its own.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        features: Features,
        path: Text,
        dtype: Dtype,
        recompute: bool,
        adapter: Adapter,
        cell: Literal["rnn", "gru", "lstm"],
        embedding: Size,
        hidden: Size,
        layers: Size,
        dropout: Fraction,
        tied: bool,
    ) -> None:
        place, config = found(path, "hf_speech_encoder")
        require_extractor(features, "Wav2Vec2FeatureExtractor", 1)
        from transformers import AutoModel

        network = network_of(place, config, AutoModel, dtype, may_lack=lambda name: name == "masked_spec_embed")
        super().__init__(network, recompute, adapter, {"path": place})
        network.config.apply_spec_augment = False
        if "masked_spec_embed" in network._parameters:
            network.masked_spec_embed.requires_grad_(False)  # what stands at such masks
        self.alone: bool = config.feat_extract_norm == "group"
        self.least = _receptive_field(config.conv_kernel, config.conv_stride)
        self.project = nn.Linear(_outputs(config), embedding)
        self.decoder = Recurrent(tokenizer, None, cell, embedding, hidden, layers, dropout, tied, False)
        self.width = self.decoder.width
        self.eval()

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S, 1] float32 samples and
        source_mask [N, S] bool, S at least 1, actions [B, T] int64; source_row [B] int64 gives the source of each row,
        None: row b has source b, and N = B."""
        return self.decoder.forward_from(*self._read(source, source_mask), actions, source_row)

    def start(self, source: Tensor, source_mask: Tensor) -> RecurrentState:
        """Encodes source [N, S, 1] float32 samples, S at least 1, with source_mask [N, S] bool, and returns the state
        before the first token, one row for each source."""
        return self.decoder.start_from(*self._read(source, source_mask))

    def step(self, state: RecurrentState, previous: Tensor | None) -> tuple[ModelOutput, RecurrentState]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. `state` stays usable."""
        return self.decoder.step(state, previous)

    def _read(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the recurrent network reads, [N, W, E], and its mask [N, W]; an empty source has none that is real."""
        samples = source.squeeze(-1).masked_fill(~source_mask, 0).to(next(self.network.parameters()).dtype)
        samples = nn.functional.pad(samples, (0, max(0, self.least - samples.shape[1])))
        lengths = source_mask.sum(1).clamp(min=self.least)  # shorter ones have silence after them
        if self.alone:
            rows = [
                self._encoded(row[None, :length], None)[0]
                for row, length in zip(samples, lengths.tolist(), strict=True)
            ]
            read = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        else:
            mask = torch.arange(samples.shape[1], device=samples.device) < lengths.unsqueeze(1)
            read = self._encoded(samples, mask)
        counts = self.network._get_feat_extract_output_lengths(lengths) * source_mask.any(1)
        seen = torch.arange(read.shape[1], device=read.device) < counts.unsqueeze(1)
        return self.project(read.to(self.project.weight.dtype)) * seen.unsqueeze(-1), seen

    def _encoded(self, samples: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs [N, W, D] of the encoder for samples [N, S]."""
        given = None if mask is None else mask.long()
        encoded: Tensor = self.network(samples, attention_mask=given).last_hidden_state
        return encoded


def require_extractor(features: Features, wanted: str, width: int) -> None:
    """Raises SettingError where `features` are not computed by the extractor `wanted`, a class of transformers, or do
    not give `width` numbers a frame."""
    if not isinstance(features, OfExtractor):
        problem = "a pretrained model needs the features of its checkpoint, and features is another"
        raise SettingError("path", problem, "use features=pretrained")
    if features.extractor != wanted or features.width != width:
        problem = f"the model reads {width} numbers a frame, by {wanted}, and features=pretrained has {features.width}"
        raise SettingError("path", f"{problem}, by {features.extractor}", "take model and features from one directory")


def _outputs(config: Any) -> int:
    """The width of the outputs of an encoder."""
    plain = config.to_dict()
    width: int = plain["output_hidden_size"] if plain.get("add_adapter") else plain["hidden_size"]
    return width


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    """The number of samples that one output of the convolutions is computed from."""
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    return field
