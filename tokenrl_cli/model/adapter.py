"""What of a pretrained network learns: all of it, or an adapter beside its weights, by the library peft.

peft is imported where it is used, never with this module. Errors are SettingErrors relative to the block of the model.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from tokenrl_cli import hub
from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.config.ranges import Fraction, Positive, Size, Text
from tokenrl_cli.interfaces import SettingError, UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WRAPPER = "base_model.model."  # before each name in a file of peft
WHOLE = "leave it out: the whole model is written"


class Adapter(Protocol):
    """Changes a network that was read from a checkpoint, so that only some of its parameters learn."""

    files: dict[str, Path]  # setting of its block -> directory of what it begins from; {} for none

    def apply(self, network: Any, new: Collection[str]) -> list[str]:
        """Changes `network`, of transformers, in place, and returns the names of the parameters that stay as the
        checkpoint has them, as the changed network names them: a run need not save them. `new` holds the names of
        parameters that are not of the checkpoint; these learn. New parameters are drawn from torch's global
        generator."""


class NoAdapter:
    """All parameters learn."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def apply(self, network: Any, new: Collection[str]) -> list[str]:
        """Returns [] and changes nothing."""
        return []


class Lora:
    """LoRA, Hu et al. 2021 (arXiv:2106.09685): W x + (alpha / r) B A x in place of W x, with A random and B = 0 at the
    start. Only A and B learn, and what of the network is new; they are float32 also where the checkpoint is bfloat16.

    With `path` rank, alpha, layers and weights are those of an adapter that peft saved, and of this block only
    `dropout` is read.
    """

    def __init__(
        self,
        r: Size,
        alpha: Positive,
        dropout: Fraction,
        targets: Literal["all-linear"] | Sequence[Text],
        path: Text | None,
    ) -> None:
        self.r, self.alpha, self.dropout, self.targets = r, alpha, dropout, targets
        self.files = {} if path is None else {"adapter.path": Path(path).expanduser()}

    def apply(self, network: Any, new: Collection[str]) -> list[str]:
        """Puts A and B beside the chosen layers of `network`, in place, and returns the names of the parameters that
        stay as the checkpoint has them. The parameters that `new` names are not of the checkpoint: they learn
        themselves, and their layers get no A and B. Raises SettingError where no layer is called as `targets` says,
        where peft cannot adapt one, where the adapter at `path` cannot be read or is of another network, and where peft
        is not installed."""
        require_extra("hf", "/adapter=lora", "peft")
        from peft import inject_adapter_in_model

        place = self.files.get("adapter.path")
        config = self._new() if place is None else self._read(place)
        config.exclude_modules = sorted({name.rpartition(".")[0] for name in new}) or None
        try:
            with hub.quiet(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of layers that are stored transposed, which peft then sees itself
                inject_adapter_in_model(config, network)
        except (ValueError, TypeError, KeyError) as error:
            where = "adapter.targets" if place is None else "adapter.path"
            cause = str(error).strip().partition("\n")[0]
            layers = sorted({name.rpartition(".")[2] for name, each in network.named_modules() if _is_layer(each)})
            raise SettingError(where, f"does not fit the network: {cause}", f"it has {', '.join(layers)}") from None
        if place is not None and torch.get_default_device().type != "meta":
            _load(network, place)
        named = list(network.named_parameters(remove_duplicate=False))
        for name, parameter in named:
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
            elif name in new:
                parameter.requires_grad_(True)
        return [name for name, parameter in named if not parameter.requires_grad]

    def _new(self) -> Any:
        from peft import LoraConfig

        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        alpha: Any = self.alpha  # peft's annotation wants an integer, and any number is right
        return LoraConfig(r=self.r, lora_alpha=alpha, lora_dropout=self.dropout, target_modules=targets)

    def _read(self, place: Path) -> Any:
        """The config of a saved adapter, with our dropout; nothing in it that would compute its weights anew."""
        from peft import LoraConfig

        if not (place / CONFIG).is_file():
            raise SettingError("adapter.path", f"{place} has no {CONFIG}: it is not the directory of a saved adapter")
        plain = hub.read_json(place / CONFIG, "adapter.path")
        if (kind := plain.get("peft_type")) != "LORA":
            raise SettingError("adapter.path", f"{place} is an adapter of the kind {kind}, and must be LORA")
        if plain.get("modules_to_save"):
            problem = f"{place} replaces whole modules ({', '.join(map(str, plain['modules_to_save']))})"
            raise SettingError("adapter.path", problem, "merge it into its checkpoint first, and start from that")
        known = ("r", "target_modules", "lora_alpha", "fan_in_fan_out", "bias", "use_rslora", "use_dora")
        kept = {key: plain[key] for key in (*known, "rank_pattern", "alpha_pattern") if key in plain}
        try:
            return LoraConfig(**kept, lora_dropout=self.dropout)
        except (TypeError, ValueError) as error:
            raise SettingError("adapter.path", f"{place / CONFIG} cannot be read: {error}") from None


def merge(network: Any) -> None:
    """Adds what the adapters of a network have learned to the weights beside them, W + alpha / r B A, in place, and
    takes the adapters away, so that it has the layers and names of its checkpoint again; does nothing where there are
    none. Weights that were frozen remain so."""
    if "peft_config" not in vars(network):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            owner, _, own = name.rpartition(".")
            setattr(network.get_submodule(owner), own, layer.get_base_layer())
    del network.peft_config


def save(network: Any, learned: dict[str, torch.Tensor], folder: Path, base: str | None, task: str) -> None:
    """Writes the adapter of a network to adapter_config.json and adapter_model.safetensors in `folder`, as peft does:
    `peft.PeftModel.from_pretrained` puts it beside the weights of its checkpoint. `learned` holds the tensors [...]
    that the run has changed, by the network's names; the name of the checkpoint on the hub, `base`, and `task`
    ("CAUSAL_LM" or "SEQ_2_SEQ_LM") go to the config.

    Raises UserError for a network without an adapter, and where more has been learned than the adapter.
    """
    if "peft_config" not in vars(network):
        problem = "the run has trained the weights themselves, and no adapter beside them"
        raise UserError("adapter=true", problem, WHOLE)
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = copy.copy(network.peft_config["default"])
    config.base_model_name_or_path, config.task_type, config.inference_mode = base, task, True
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)  # a set has another order in each process
    found = get_peft_model_state_dict(network, learned, save_embedding_layers=False)
    rest = sorted(name for name in learned if ".lora_" not in name and name.replace(".default", "") not in found)
    if rest:
        problem = (
            f"{len(rest)} weights have been learned that the checkpoint lacks, such as {rest[0]}: no adapter has them"
        )
        raise UserError("adapter=true", problem, WHOLE)
    config.save_pretrained(folder)
    tensors = {f"{WRAPPER}{name}": value.detach().contiguous() for name, value in found.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _is_layer(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _load(network: Any, place: Path) -> None:
    """Copies the weights of a saved adapter into the network. Raises SettingError where they are missing, pickled or
    damaged, or do not fit."""
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (place / WEIGHTS).is_file():
        problem = f"{place} has no {WEIGHTS}; pickled weights are not read, because they can run code"
        raise SettingError("adapter.path", problem, "save it with safetensors: PeftModel.save_pretrained does")
    try:
        weights = {name.removeprefix(WRAPPER): value for name, value in load_file(place / WEIGHTS).items()}
        found: Any = set_peft_model_state_dict(network, weights)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        cause = str(error).strip().partition("\n")[2].strip() or str(error)
        raise SettingError("adapter.path", f"the weights in {place} do not fit: {cause}") from None
    lacking = [name for name in found.missing_keys if "lora_" in name] + list(found.unexpected_keys)
    if lacking:
        problem = f"the weights in {place} are of another network: {lacking[0]} is not in both"
        raise SettingError("adapter.path", problem, "name the adapter of this checkpoint")


def digest(place: Path) -> str:
    """Returns a SHA-256 in hexadecimal that changes with the saved adapter in the directory `place`: of the names and
    the hashes of its config and its weights, so not that of one of these files. Raises OSError where one of them is
    missing or cannot be read."""
    return hub.digest_of([place / CONFIG, place / WEIGHTS])
