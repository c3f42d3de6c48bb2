"""What models from pretrained checkpoints share: the table from our token ids to those of the checkpoint, the head that
scores hidden states, and the check that an architecture keeps the contract of `Model`.

Our vocabulary holds only what can be generated; padding, begin and mask ids of the checkpoint are not in it. So every
algorithm works on our V tokens, and the wrapper translates: ids on their way in, columns of the logits on their way
out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenrl_cli import hub
from tokenrl_cli.config.build import hint
from tokenrl_cli.config.ranges import CountOrZero, Text
from tokenrl_cli.interfaces import Base, ModelOutput, SettingError, Tokenizer, TranslatesIds, UserError
from tokenrl_cli.model import adapter as adapters

Dtype = Literal["float32", "bfloat16"]
Begin = Sequence[CountOrZero | Text] | None  # ids or names of tokens of a checkpoint
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15}  # of the contract, in standard deviations of the logits
EXAMPLE_LENGTHS = (3, 1)  # tokens of the two sources of the check
SPEECH = {  # the kinds of checkpoints that read speech, and the option of the config group model for each
    "whisper": "hf_speech",
    "wav2vec2": "hf_speech_encoder",
    "hubert": "hf_speech_encoder",
}


# ------------------------------------------------------------------------------------------------------ reading


def on_meta() -> bool:
    """Returns whether torch's default device is the meta device, on which new tensors have no memory: a model is then
    built from its config alone."""
    return torch.get_default_device().type == "meta"


def kind_of(config: Any) -> str:
    """Returns the option of the config group model that reads checkpoints with this config of transformers:
    "hf_causal", "hf_seq2seq", "hf_encoder_decoder" for an encoder such as BERT and for a pair of encoder and decoder,
    "hf_speech" for Whisper, "hf_speech_encoder" for an encoder of speech, or "" for none."""
    from transformers.models.auto import modeling_auto as known

    name = config.model_type
    if name in SPEECH:
        return SPEECH[name]
    if name == "encoder-decoder":
        return "hf_encoder_decoder"
    if config.is_encoder_decoder:
        return "hf_seq2seq" if name in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES else ""
    if name in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "hf_encoder_decoder"
    return "hf_causal" if name in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else ""


def found(path: str, wanted: str) -> tuple[Path, Any]:
    """Returns the directory (or GGUF file) and the config of the checkpoint that the setting `path` names. Raises
    SettingError as `hub.directory` and `hub.config` do, and where the option `wanted`, such as "hf_causal", does not
    read such checkpoints; the error names the option that does."""
    place = hub.directory(path, "path")
    config = hub.config(place, "path")
    kind = kind_of(config)
    if kind != wanted:
        problem = f"{path} is a {config.model_type!r} checkpoint, which model={wanted} does not read"
        raise SettingError("path", problem, f"use model={kind}" if kind else "it is no model that generates text")
    return place, config


def network_of(path: Path, config: Any, auto_class: Any, dtype: Dtype, **arguments: Any) -> Any:
    """Returns the network of the checkpoint at `path` with its weights in `dtype`, loaded by `auto_class`, such as
    transformers.AutoModelForCausalLM; `config` is that of `hub.config`. See `hub.weights`, whose errors it raises and
    whose further `arguments` it takes. On torch's meta device it is built from the config instead, and no weight is
    read."""
    if on_meta():
        arguments.pop("may_lack", None)
        return auto_class.from_config(config, dtype=getattr(torch, dtype), **arguments)
    return hub.weights(path, config, auto_class, "path", dtype=getattr(torch, dtype), **arguments)


def ids_in_checkpoint(tokenizer: Tokenizer, size: int, what: str) -> list[int]:
    """Returns for each id of `tokenizer` its id in the vocabulary of a checkpoint, which has `size` tokens; a new list.

    Raises SettingError for a tokenizer that is not of a pretrained checkpoint, or that has ids which the checkpoint
    does not have. `what` is the key of the tokenizer in the config, for these errors.
    """
    if not isinstance(tokenizer, TranslatesIds):
        problem = f"a pretrained model needs the tokenizer of its checkpoint, and {what} is another"
        raise SettingError("path", problem, f"use {what}=pretrained")
    if beyond := [each for each in tokenizer.theirs if not 0 <= each < size]:
        problem = f"the vocabulary of the model has {size} tokens, and {what} has the id {beyond[0]}: they differ"
        raise SettingError("path", problem, f"take model and {what} from one directory")
    return list(tokenizer.theirs)


def generation_settings(path: Path) -> dict[str, Any]:
    """Returns the entries of config.json in the directory `path` of a checkpoint (ids of special tokens and all
    others), as they were written there, overridden by those of generation_config.json; null entries of either are left
    out; {} for a GGUF file. Raises SettingError where a file that is there cannot be read; a missing one is skipped."""
    if path.suffix == ".gguf":
        return {}
    found: dict[str, Any] = {}
    for name in (hub.CONFIG, "generation_config.json"):
        if (path / name).is_file():
            found |= {key: value for key, value in hub.read_json(path / name, "path").items() if value is not None}
    return found


# ------------------------------------------------------------------------------------------------------ sources


def framed(
    ids: Tensor,
    mask: Tensor,
    before: Sequence[int],
    after: Sequence[int],
    filler: int,
    padded: Literal["left", "right"],
) -> tuple[Tensor, Tensor]:
    """Returns each row of ids [N, S] between the ids `before` and `after`, and its mask bool, both [N, W]; W is S + the
    number of ids around, at least 1. The results are new tensors.

    mask [N, S] bool is True at the real ids, which come first in their row. Padding goes to the side `padded` and holds
    `filler`, whatever `ids` held there. A row that would be empty becomes the one real id `filler`.
    """
    length = mask.sum(-1, keepdim=True)
    around = [ids.new_tensor(list(each)).expand(len(ids), -1) for each in (before, after)]
    row = torch.cat([around[0], ids, around[1], ids.new_full((len(ids), 1), filler)], 1)
    first, second = len(before), len(after)
    total = (length + first + second).clamp(min=1)
    width = max(ids.shape[1] + first + second, 1)
    place = torch.arange(width, device=ids.device) - (width - total if padded == "left" else 0)  # [N, W]
    seen = (place >= 0) & (place < total)
    source = torch.where(place < first + length, place, place - length + ids.shape[1])
    last = row.shape[1] - 1
    empty = length + first + second == 0
    source = torch.where(seen & ~empty, source, last)
    return row.gather(1, source.clamp(0, last)), seen


# ------------------------------------------------------------------------------------------------------ caches


def renewed(cache: Any, index: Tensor | None = None) -> Any:
    """Returns a new cache with the rows at `index` [M] int64, repeats allowed, or with all of them, of a DynamicCache
    or EncoderDecoderCache of transformers. The old one stays usable: what a step adds to one of them does not reach the
    other."""
    from transformers.cache_utils import EncoderDecoderCache

    new = copy.copy(cache)
    if isinstance(cache, EncoderDecoderCache):
        new.self_attention_cache = renewed(cache.self_attention_cache, index)
        new.cross_attention_cache = renewed(cache.cross_attention_cache, index)
        new.is_updated = dict(cache.is_updated)
        return new
    new.layers = [_renewed_layer(layer) for layer in cache.layers]
    if index is not None:
        new.reorder_cache(index)
    return new


def _renewed_layer(layer: Any) -> Any:
    """Layers of attention replace their keys and values; others write into states, which dictionaries hold."""
    new = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            copies = {key: each.clone() if isinstance(each, Tensor) else each for key, each in value.items()}
            setattr(new, name, copies)
    return new


# -------------------------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class Scaling:
    """What an architecture does to the hidden states before its output layer, and to the logits after it."""

    before: float
    after: float
    cap: float | None  # logits -> cap * tanh(logits / cap)

    @classmethod
    def of(cls, config: Any) -> Scaling:
        """Returns the scaling that a config of transformers describes by scale_decoder_outputs (as in T5), logit_scale
        (Cohere), logits_scaling (Granite) and final_logit_softcapping (Gemma); the factor 1 and no cap for those that
        it does not have."""
        plain = config.to_dict()
        before = plain["d_model"] ** -0.5 if plain.get("scale_decoder_outputs") else 1.0
        after = (plain.get("logit_scale") or 1.0) / (plain.get("logits_scaling") or 1.0)
        return cls(before, after, plain.get("final_logit_softcapping"))


class FromCheckpoint(nn.Module):
    """The base of all models with a network of transformers: applies the adapter, and knows what is to be saved.

    `recompute` keeps no activations inside the layers; the backward pass computes them again. `places` are the
    checkpoints that the network was read from, by the setting that names each, and `new` the names of the parameters
    that they do not have.

    `bases` says which checkpoints a saved run needs again. Under an adapter the state of the model has only what
    learns: neither `state_dict` nor a state to load holds the other parameters.
    """

    def __init__(
        self,
        network: Any,
        recompute: bool,
        adapter: adapters.Adapter,
        places: dict[str, Path],
        new: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.elsewhere = [f"network.{name}" for name in adapter.apply(network, new)]  # parameters that stay
        self.bases: dict[str, Base] = {}
        if not on_meta():
            self.bases |= {key: Base(str(path), hub.digest(path, key)) for key, path in places.items()}
            self.bases |= {key: Base(str(path), adapters.digest(path)) for key, path in adapter.files.items()}
        self.recompute = recompute
        if recompute:
            _recompute_layers(network)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the state as torch.nn.Module does, live tensors, each once: a tied weight, of any shape, has the
        first of its names. Under an adapter without the parameters that stay as the checkpoint has them. The model
        loads such a state."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        for name in (*self._aliases(), *self.elsewhere):
            state.pop(prefix + name, None)
        return state

    def _load_from_state_dict(self, state_dict: Any, prefix: Any, *args: Any) -> None:
        if self.elsewhere:
            own = {_plain(name): value for name, value in self.named_parameters(remove_duplicate=False)}
            for name in self.elsewhere:
                state_dict.setdefault(prefix + name, own[name])
        for alias, name in self._aliases().items():
            if prefix + name in state_dict:
                state_dict.setdefault(prefix + alias, state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _aliases(self) -> dict[str, str]:
        """Further name -> first name of every parameter and buffer that the network holds under several names."""
        first: dict[int, str] = {}
        named = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        found = {}
        for name, value in named:
            plain = _plain(name)
            if first.setdefault(id(value), plain) != plain:
                found[plain] = first[id(value)]
        return found


class Pretrained(FromCheckpoint):
    """The base of the wrappers: holds the network and the tables of ids, and projects hidden states to our tokens.

    `generator` is the part of `network` with the output layer: the network itself, or its decoder. For the other
    arguments see `FromCheckpoint`. The constructor leaves the network in evaluation mode.
    """

    source_theirs: Tensor
    theirs: Tensor

    def __init__(
        self,
        network: Any,
        generator: Any,
        sources: list[int],
        targets: list[int],
        recompute: bool,
        adapter: adapters.Adapter,
        places: dict[str, Path],
        new: Collection[str] = (),
    ) -> None:
        super().__init__(network, recompute, adapter, places, new)
        self.scaling = Scaling.of(generator.config)
        layer = _output_layer(generator)
        self.width: int = layer.in_features if isinstance(layer, nn.Linear) else generator.config.hidden_size
        # as a slice where it is one: the output layer then computes our logits alone, and nothing is copied
        first, size = targets[0], len(targets)
        self.slice = slice(first, first + size) if targets == list(range(first, first + size)) else None
        self.register_buffer("source_theirs", torch.tensor(sources), persistent=False)
        self.register_buffer("theirs", torch.tensor(targets), persistent=False)
        self.eval()

    @property
    def generator(self) -> Any:
        """The part of the network that has the output layer."""
        return self.network

    def project(self, hidden: Tensor) -> Tensor:
        """Returns the logits [..., V] of our tokens from hidden states [..., D]: the output layer of the checkpoint,
        with its scales, biases and caps. V is the number of our tokens, not of the checkpoint's. Gradients flow into
        `hidden` and the output layer."""
        generator = self.generator
        layer, scaling = _output_layer(generator), self.scaling
        hidden = hidden * scaling.before if scaling.before != 1 else hidden
        bias = generator._buffers.get("final_logits_bias")
        if type(layer) is nn.Linear and self.slice is not None:
            inner = None if layer.bias is None else layer.bias[self.slice]
            logits = nn.functional.linear(hidden, layer.weight[self.slice], inner)
        else:
            logits = self._ours(layer(hidden))
        logits = logits if bias is None else logits + self._ours(bias[0])
        logits = logits * scaling.after if scaling.after != 1 else logits
        return logits if scaling.cap is None else (logits / scaling.cap).tanh() * scaling.cap

    def _ours(self, logits: Tensor) -> Tensor:
        """The columns of our tokens: [..., V of the checkpoint] -> [..., V]."""
        if self.slice is not None:
            return logits[..., self.slice]
        # as a matrix: on a CPU, index_select along the last of three dimensions takes ten times as long
        rows = logits.reshape(-1, logits.shape[-1]).index_select(1, self.theirs)
        return rows.view(*logits.shape[:-1], len(self.theirs))

    def output(self, hidden: Tensor) -> ModelOutput:
        """Returns the ModelOutput with hidden states [B, T, D], the same tensor, whose logits [B, T, V] are computed at
        the first access."""
        return ModelOutput(hidden, self.project)


def _plain(name: str) -> str:
    """The name that a parameter has without `recompute`."""
    return name.replace("_checkpoint_wrapped_module.", "")


def _output_layer(generator: Any) -> nn.Module:
    """The module that computes logits from the last hidden states: the child of the generator that holds its output
    embeddings. Of GPT-2 that is one linear layer, of BERT the whole head."""
    output = generator.get_output_embeddings()
    body = generator.base_model
    children = [each for each in generator.children() if each is not body]
    layer: nn.Module = next((each for each in children if any(part is output for part in each.modules())), output)
    return layer


def _recompute_layers(network: Any) -> None:
    """Wraps each layer so that it keeps its input alone, and the backward pass computes it again, in both modes:
    that of transformers acts in training mode only, and policy gradients are taken in evaluation mode."""
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as wrapping
    from transformers.modeling_layers import GradientCheckpointingLayer

    class Recomputed(wrapping.CheckpointWrapper):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            """The layer as it is where nothing will be computed again: the wrapper saves random states for it."""
            forward = super().forward if torch.is_grad_enabled() else self._checkpoint_wrapped_module
            return forward(*args, **kwargs)

    def wrapped(layer: nn.Module) -> nn.Module:
        return Recomputed(layer, wrapping.CheckpointImpl.NO_REENTRANT)

    wrapping.apply_activation_checkpointing(
        network, checkpoint_wrapper_fn=wrapped, check_fn=lambda layer: isinstance(layer, GradientCheckpointingLayer)
    )


# ---------------------------------------------------------------------------------------------------- the check


@torch.no_grad()
def require_contract(
    model: Pretrained,
    own_logits: Callable[[Tensor, Tensor, Tensor], Tensor],
    examples: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Checks on two short rows that a `Pretrained` model computes the same logits in every way that `Model` allows: in
    its own call as in the network's forward pass, in a padded batch as for each row alone, and token by token (with
    states reordered) as in one pass. Raises SettingError where they differ or where the network cannot be run so. The
    model must be on the CPU and in evaluation mode; it is not changed. Does nothing on torch's meta device.

    `own_logits(source, source_mask, actions)`, all three in ids of our tokenizers as `Model.__call__` takes them,
    returns the logits [B, T, V] of the network's own forward pass, with columns for our V tokens, not for all those of
    the checkpoint. `examples` are the source and the source_mask of the two rows, whose lengths differ; None: ids of
    EXAMPLE_LENGTHS. An architecture that cannot do this, such as a state-space model or one whose positions cannot be
    given, so fails here, and not in a run.
    """
    if on_meta():
        return
    name, size = type(model.generator).__name__, len(model.theirs)
    source, mask = examples or _example_ids(len(model.source_theirs))
    actions = (torch.arange(6).view(2, 3) * 7 + 1) % size
    try:
        whole = model(source, mask, actions).logits.float()
        wanted = {
            "of its own forward pass": own_logits(source, mask, actions).float(),
            "of a row by itself, without padding": torch.cat(
                [
                    model(source[row : row + 1, :length], mask[row : row + 1, :length], actions[row : row + 1]).logits
                    for row, length in enumerate(mask.sum(1).tolist())
                ]
            ).float(),
            "of one token at a time": _stepwise(model, source, mask, actions).float(),
        }
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, NotImplementedError) as error:
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        problem = f"{name} cannot be run as a policy that keeps its memory between tokens ({cause})"
        raise SettingError("path", problem, ANOTHER) from error
    for what, logits in wanted.items():
        if logits.shape != whole.shape:
            problem = f"{name} cannot be used: {list(logits.shape)} logits {what}, not {list(whole.shape)}"
            raise SettingError("path", problem, ANOTHER)
        difference = float((whole.log_softmax(-1) - logits.log_softmax(-1)).abs().max() / logits.std())
        if not difference <= TOLERANCE[next(model.parameters()).dtype]:
            problem = (
                f"{name} cannot be used: its logits for a batch differ from those {what}, "
                f"by {difference:.2g} standard deviations"
            )
            raise SettingError("path", problem, ANOTHER)


def _example_ids(sources: int) -> tuple[Tensor, Tensor]:
    """Two sources of ids below `sources`, and their mask."""
    source = torch.arange(2 * EXAMPLE_LENGTHS[0]).view(2, -1) % sources
    return source, torch.arange(EXAMPLE_LENGTHS[0]) < torch.tensor(EXAMPLE_LENGTHS).unsqueeze(1)


ANOTHER = "choose a checkpoint of another architecture; GPT-2, Llama, Qwen, T5, BART, Marian and BERT can be used"


def _stepwise(model: Any, source: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
    """The logits [B, T, V] of one token at a time, from states that were reordered twice, which changes nothing."""
    swapped = torch.tensor([1, 0])
    state, previous, outputs = model.start(source, mask), None, []
    for t in range(actions.shape[1]):
        output, state = model.step(state.reorder(swapped).reorder(swapped), previous)
        outputs.append(output.logits)
        previous = actions[:, t]
    return torch.cat(outputs, 1)


def first_token(path: Path, config: Any, *names: str) -> int:
    """Returns the id, in the checkpoint's vocabulary, of the first of the tokens `names`, such as "bos_token_id", that
    a checkpoint has: as `generation_settings(path)` names it, else `config`, of transformers; of several EOS the first.
    Raises SettingError if it has none of them."""
    named = {key: value for key, value in config.to_dict().items() if value is not None} | generation_settings(path)
    for name in names:
        value = named.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            return value
    raise SettingError("path", f"{path} names none of {', '.join(names)}: an empty prompt has nothing to begin with")


def begin_ids(begin: Sequence[int | str], path: Path, size: int) -> list[int]:
    """Returns the ids of a checkpoint's vocabulary that the setting `begin` names: each an id itself, or the name of a
    token as the checkpoint's own tokenizer spells it, such as "ro_RO". Raises SettingError for a name that is no token,
    and for an id beyond the `size` tokens of the checkpoint."""
    vocabulary: dict[str, int] = {}
    if names := [each for each in begin if isinstance(each, str)]:
        library = hub.tokenizer(path, "path")
        vocabulary = library.get_vocab()
        if unknown := [name for name in names if name not in vocabulary]:
            special = [token.content for token in library.added_tokens_decoder.values()]
            problem = f"holds {unknown[0]!r}, which is no token of {path}{hint(unknown[0], special)}"
            raise SettingError("begin", problem, "give the name as its tokenizer spells it, or the id")
    found = [vocabulary[each] if isinstance(each, str) else each for each in begin]
    if beyond := [each for each in found if each >= size]:
        raise SettingError("begin", f"holds {beyond[0]}, and the last id of the checkpoint is {size - 1}")
    return found


def positions_of(network: Any) -> int | None:
    """Returns the number of positions that a network of transformers has, in tokens: no longer sequence can be read.
    None if its config names none: then it has no limit."""
    plain = network.config.to_dict()
    name = "max_position_embeddings"
    found: int | None = plain.get(name) or plain.get(network.config.attribute_map.get(name, name))
    for key, part in network.named_modules():
        # RoBERTa counts from the row after that of padding
        if found and key.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx:
            found -= part.padding_idx + 1
    return found


def size_of(network: Any) -> int:
    """Returns the number of tokens that a network of transformers reads, the rows of its input embeddings. Raises
    SettingError where its `get_input_embeddings` is missing or names none."""
    try:
        size: int = network.get_input_embeddings().num_embeddings
    except (AttributeError, NotImplementedError):
        name = type(network).__name__
        raise SettingError("path", f"{name} cannot be used: it does not name its embeddings", ANOTHER) from None
    return size


def require_room(what: str, length: int, longest: int | None, key: str) -> None:
    """Raises UserError where `length` tokens are more than the positions that a checkpoint has (`longest`; None: no
    limit). For the message, `what` is the text that has them, such as "a source", and `key` the setting that lowers the
    number of tokens, as it is typed ("dataset.max_source_length")."""
    if longest is not None and length > longest:
        raise UserError(key, f"{what} has {length} tokens, and the checkpoint has {longest} positions", f"lower {key}")
