"""`tokenrl export ckpt=RUN to=DIR`: writes the model of a run in the format that it came from.

A model from a pretrained checkpoint becomes a directory of transformers: weights as safetensors, config, generation
config, the tokenizer's own files, and a README.md that says how it was trained and what it scored. A model of
tokenrl's own, or of the user's, becomes its tensors as safetensors, its tokenizer and its config.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tokenrl_cli.interfaces import UserError

if TYPE_CHECKING:
    from tokenrl_cli.model.pretrained import Pretrained
    from tokenrl_cli.run.checkpoint import Checkpoint
    from tokenrl_cli.run.task import GenerationTask

TAGS = ("tokenrl", "reinforcement-learning")
KEPT = (
    "model",
    "tokenizer",
    "source_tokenizer",
    "features",
    "decode",
)  # blocks of the config beside a model of our own
POLICY_FILE = "policy.safetensors"


def run(config: DictConfig) -> None:
    """Writes the model of the checkpoint `ckpt` to the directory `to`, which must be new or empty, whole or not at all.
    Called by Hydra. Raises UserError for a mistake of the user's, OSError if the system refuses."""
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commands.keys import Export, require_keys
    from tokenrl_cli.report.display import choose_display
    from tokenrl_cli.run import checkpoint

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require_keys(plain, Export)
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]).expanduser(), ("best", "last")))
    place, notes = export(saved, Path(plain["to"]).expanduser(), plain, typed_values(HydraConfig.get().overrides.task))
    display = choose_display()
    for note in notes:
        display.message(f"note: {note}")
    display.message(f"step {saved.step} written to {place}")
    display.close()


def export(saved: Checkpoint, to: Path, plain: dict[str, Any], named: dict[str, str]) -> tuple[Path, list[str]]:
    """Writes the model of a checkpoint to the directory `to` and returns it, and notes on what the directory does not
    hold of the policy. Of `plain`, a resolved config, it reads model, data_root, imports (the user's modules whose
    classes and functions a `_target_` may name) and adapter (true: the adapter alone); `named` holds the values that
    the user has given, by key.

    Seeds torch's global generator. Raises UserError where the model cannot be built, where it was trained from a
    pretrained model outside the current directory and data_root that is not among `named`, where there is no adapter to
    write, or where `to` is neither new nor empty; OSError if the system refuses.
    """
    import torch

    from tokenrl_cli.commands.eval import refuse_unsafe_data, with_overrides
    from tokenrl_cli.config.build import check
    from tokenrl_cli.files.writing import require_new_folder, require_room, whole_folder
    from tokenrl_cli.model.pretrained import Pretrained
    from tokenrl_cli.run import assembly, checkpoint

    require_new_folder(to)
    require_room(to)
    stage, trust = saved.state["stage"], plain["imports"]
    whole = with_overrides(saved.config, stage, {key: plain[key] for key in ("model", "data_root")})
    if "recompute" in whole["model"]:  # it wraps the layers, and the network is written as it is without
        whole["model"] = whole["model"] | {"recompute": False}
    check({name: whole[name] for name in assembly.blocks_to_generate(whole, stage)}, trust)
    refuse_unsafe_data({"model": whole["model"], "data_root": plain["data_root"]}, saved.config, named)
    cpu = torch.device("cpu")
    task = assembly.generation_task_of(whole, trust, cpu, torch.float32, whole["seed"], saved.tokenizer_dir)
    notes = [] if assembly.acts_by_its_model(whole, trust, task, stage) else [_values_note(whole, stage)]
    with whole_folder(to) as part:
        if assembly.is_pretrained(whole, trust, task):
            model: Pretrained = assembly.model_of(whole, trust, task)
            assert isinstance(model, Pretrained)
            checkpoint.restore(model, saved)
            if plain["adapter"]:
                _write_adapter(part, model, whole, saved, notes)
            else:
                _write_network(part, model, task, whole, saved, notes)
        elif plain["adapter"]:
            raise UserError(
                "adapter=true", "the model of this run has no adapter", "leave it out: its tensors are written"
            )
        else:
            _write_tensors(part, saved, notes)
    return to, notes


def _values_note(config: dict[str, Any], stage: str) -> str:
    from tokenrl_cli.run.assembly import STAGES

    name = str(config[STAGES[stage]]["_target_"]).split(".")[-2]
    return (
        f"the policy of {name} chooses tokens by learned values beside the logits of this model: decoding the model "
        f"alone gives other texts. Tensors of the policy that are not the model's are in {POLICY_FILE}"
    )


# ----------------------------------------------------------------------------------------------------- transformers


def network_to_write(model: Pretrained) -> Any:
    """Returns the network of a model as transformers writes it, with all that was learned in its own weights: an
    adapter is merged into them. A network from a GGUF file becomes a plain one. Changes the model's own."""
    from transformers import PreTrainedModel

    from tokenrl_cli.model.adapter import merge

    network = model.network
    merge(network)
    for each in network.modules():
        if isinstance(each, PreTrainedModel):
            each.config._name_or_path = ""  # the folder that it was read from
    reader = vars(network).get("hf_quantizer")  # of a network whose numbers were packed
    if reader is not None and reader.quantization_config.quant_method == "gguf":
        del network.hf_quantizer  # they were unpacked when they were read
        vars(network.config).pop("quantization_config", None)
    return network


def _write_network(
    part: Path, model: Pretrained, task: GenerationTask, config: dict[str, Any], saved: Checkpoint, notes: list[str]
) -> None:
    """Writes a directory of transformers to the folder `part`. `config` is that of the checkpoint with the overrides of
    the command line."""
    from tokenrl_cli import hub

    network = network_to_write(model)
    network.generation_config = generation_config(model, task)
    with hub.quiet():
        network.save_pretrained(part)
    two_sided = _write_tokenizers(part, saved, "target" if _is_theirs(saved, "target") else "")
    if _reads_speech(model):
        from tokenrl_cli.features.pretrained import FILE

        shutil.move(part / "tokenizer" / "source" / FILE, part / FILE)
        shutil.rmtree(part / "tokenizer" / "source")
        two_sided = False
    _write_policy(part, saved)
    (part / "README.md").write_text("\n".join(_network_card(model, config, saved, two_sided, notes)), "utf-8")


def _write_adapter(part: Path, model: Pretrained, config: dict[str, Any], saved: Checkpoint, notes: list[str]) -> None:
    """Writes what LoRA has learned to the folder `part`, in the format of peft."""
    from tokenrl_cli.model import adapter

    task = "SEQ_2_SEQ_LM" if _reads_with_encoder(model) else "CAUSAL_LM"
    path = config["model"]["path"]
    local = path is None or Path(path).expanduser().exists()
    base = None if local else path  # the name of a folder may mean another on the hub
    learned = {name.removeprefix("network."): value for name, value in model.state_dict().items()}
    adapter.save(model.network, learned, part, base, task)
    _write_policy(part, saved)
    (part / "README.md").write_text("\n".join(_adapter_card(model, config, saved, notes)), "utf-8")


def generation_config(model: Pretrained, task: GenerationTask) -> Any:
    """Returns the transformers.GenerationConfig by which `generate` decodes as tokenrl does: greedy, at most
    decode.max_length tokens, from the tokens that the decoder begins with; ids that the policy cannot generate are
    suppressed."""
    from transformers import GenerationConfig

    from tokenrl_cli.model.encoder_decoder import ReadsWithEncoder

    theirs = model.theirs.tolist()
    eos, longest = theirs[task.tokenizer.eos_id], task.decoding.max_length
    size = model.generator.get_output_embeddings().out_features
    said = set(theirs)
    named: dict[str, Any] = {"eos_token_id": eos, "do_sample": False, "num_beams": 1}
    config = model.generator.config
    pad = config.pad_token_id
    if _reads_speech(model):
        return _whisper_generation(model, named | {"max_new_tokens": longest}, sorted(set(range(size)) - said))
    if isinstance(model, ReadsWithEncoder):
        pad = model.filler
        start, *forced = model.begin
        named |= {"decoder_start_token_id": start}
        if forced:  # it counts as a token, and must not be suppressed
            named["forced_bos_token_id"] = forced[0]
            longest, said = longest + 1, said | {forced[0]}
    else:
        named["bos_token_id"] = config.bos_token_id
    named |= {"pad_token_id": eos if pad is None else pad, "max_new_tokens": longest}
    suppressed = sorted(set(range(size)) - said)
    return GenerationConfig(**named, suppress_tokens=suppressed or None)


def _whisper_generation(model: Any, named: dict[str, Any], suppressed: list[int]) -> Any:
    """The same for Whisper, whose `generate` puts together itself what the decoder begins with."""
    from transformers import GenerationConfig

    own = model.network.generation_config.to_dict()
    own |= named | {"decoder_start_token_id": model.begin[0], "pad_token_id": model.filler}
    own |= {"suppress_tokens": suppressed, "begin_suppress_tokens": None, "forced_decoder_ids": None}
    for key, table in (("language", "lang_to_id"), ("task", "task_to_id")):
        chosen = [name for name, each in (own.get(table) or {}).items() if each in model.begin]
        own[key] = chosen[0] if chosen else None
    return GenerationConfig(**own)


def _reads_speech(model: Pretrained) -> bool:
    from tokenrl_cli.model.hf_speech import HfSpeech

    return isinstance(model, HfSpeech)


def _is_theirs(saved: Checkpoint, side: str) -> bool:
    """Whether the tokenizer of a side is that of a pretrained checkpoint."""
    from tokenrl_cli.tokenizer.pretrained import TABLE

    return (saved.tokenizer_dir / side / TABLE).is_file()


def _write_tokenizers(part: Path, saved: Checkpoint, root: str) -> bool:
    """Copies the files of the tokenizers, and returns whether there are two that differ. That of the side `root` goes
    to the folder itself without its table of ids, so that transformers reads it; others to tokenizer/SIDE as they
    are."""
    from tokenrl_cli.tokenizer.pretrained import TABLE

    files = {
        folder.name: {each.name: each for each in sorted(folder.iterdir()) if each.is_file() and each.name != TABLE}
        for folder in sorted(saved.tokenizer_dir.iterdir())
    }
    contents = [{name: each.read_bytes() for name, each in found.items()} for found in files.values()]
    differ = len(contents) > 1 and contents[0] != contents[1]
    for side, found in files.items():
        if side == root:
            for name, each in found.items():
                if (part / name).exists():  # of the model: a checkpoint from elsewhere may name its files as it likes
                    raise UserError(str(each), "is no file of a tokenizer", "take another checkpoint")
                shutil.copyfile(each, part / name)
        elif not root or differ:
            shutil.copytree(saved.tokenizer_dir / side, part / "tokenizer" / side)
    return differ


def _write_policy(part: Path, saved: Checkpoint) -> None:
    """Writes the tensors that the policy has besides the model's, if there are any."""
    from safetensors.torch import save_file

    from tokenrl_cli.run.assembly import POLICY

    if tensors := {name: each for name, each in _tensors(saved.algorithm).items() if name.startswith(POLICY)}:
        save_file({name: each.clone() for name, each in tensors.items()}, part / POLICY_FILE)


def _tensors(state: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}


# -------------------------------------------------------------------------------------------------- models of our own


def _write_tensors(part: Path, saved: Checkpoint, notes: list[str]) -> None:
    """Writes a model that transformers does not know to the folder `part`."""
    from safetensors.torch import save_file

    from tokenrl_cli.files.records import yaml_text
    from tokenrl_cli.report import model_card

    save_file(saved.model, part / "model.safetensors")
    _write_tokenizers(part, saved, "")
    _write_policy(part, saved)
    config = {name: saved.config[name] for name in KEPT if saved.config.get(name)}
    config["dataset"] = {"max_source_length": saved.config["dataset"]["max_source_length"]}
    (part / "config.yaml").write_text(yaml_text(model_card.without_folders(config)), "utf-8")
    target = str(saved.config["model"]["_target_"])
    lines = model_card.front_matter(None, TAGS)
    lines += [f"# {target.split('.')[-1]}, trained by tokenrl", ""]
    lines += [
        f"`model.safetensors` holds the weights of `{target}`, `tokenizer/` its tokenizers, and `config.yaml` the"
    ]
    lines += ["blocks of the config that they are built from.", "", *_notes(notes), *_history(saved)]
    shapes = ((name, list(each.shape), str(each.dtype).removeprefix("torch.")) for name, each in saved.model.items())
    lines += model_card.tensors(shapes)
    (part / "README.md").write_text("\n".join(lines), "utf-8")


# ------------------------------------------------------------------------------------------------------------ the card


def _network_card(
    model: Pretrained, config: dict[str, Any], saved: Checkpoint, two_sided: bool, notes: list[str]
) -> list[str]:
    """The lines of README.md of a directory of transformers."""
    from tokenrl_cli.report import model_card

    name = _auto_class(model)
    lines = model_card.front_matter("transformers", TAGS)
    lines += [f"# {type(model.network).__name__}, trained by tokenrl", "", *_base(model, config), *_notes(notes)]
    lines += ["## Use", "", "```python", f"from transformers import {name}, AutoTokenizer", ""]
    lines += [f'model = {name}.from_pretrained("DIR")']
    if not _is_theirs(saved, "target"):
        return [*lines, "```", "", "The tokenizers are tokenrl's own, in `tokenizer/`.", "", *_history(saved)]
    lines += ['tokenizer = AutoTokenizer.from_pretrained("DIR")', *_example(model, saved), "```", ""]
    if two_sided:
        lines += ["Sources have a tokenizer of their own, in `tokenizer/source`.", ""]
    lines += [
        "`generation_config.json` decodes as tokenrl evaluates: greedy, and without the ids that the policy cannot"
    ]
    return [*lines, "generate.", "", *_history(saved)]


def _example(model: Pretrained, saved: Checkpoint) -> list[str]:
    """Python that generates from a source, with the prompt that the policy was trained on."""
    from tokenrl_cli.files.records import read_json
    from tokenrl_cli.tokenizer.pretrained import TABLE

    if _reads_speech(model):
        return [
            "from transformers import AutoFeatureExtractor",
            "",
            'extractor = AutoFeatureExtractor.from_pretrained("DIR")',
            'inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")',
            "found = model.generate(inputs.input_features)[0]",
            "print(tokenizer.decode(found, skip_special_tokens=True))",
        ]
    side = "source" if (saved.tokenizer_dir / "source").is_dir() else "target"
    table = read_json(saved.tokenizer_dir / side / TABLE, "tokenizer of a checkpoint")
    before, after = table["template"]
    prompt = f"{before!r} + source + {after!r}" if before or after else "source"
    special = "" if side == "target" or any(table["around"]) else ", add_special_tokens=False"
    lines = [f'inputs = tokenizer({prompt}, return_tensors="pt"{special})', "found = model.generate(**inputs)[0]"]
    if not _reads_with_encoder(model):
        lines.append('found = found[inputs["input_ids"].shape[1] :]  # without the prompt')
    return [*lines, "print(tokenizer.decode(found, skip_special_tokens=True))"]


def _adapter_card(model: Pretrained, config: dict[str, Any], saved: Checkpoint, notes: list[str]) -> list[str]:
    """The lines of README.md of an adapter."""
    from tokenrl_cli.report import model_card

    name, kind = _auto_class(model), str(config["model"]["_target_"]).split(".")[-2]
    lines = model_card.front_matter("peft", TAGS)
    lines += [f"# LoRA adapter of {type(model.network).__name__}, trained by tokenrl", "", *_base(model, config)]
    lines += [*_notes(notes), "It goes with that checkpoint alone, here called BASE.", ""]
    lines += ["## Use", "", "```python", "from peft import PeftModel", f"from transformers import {name}", ""]
    lines += [f'model = PeftModel.from_pretrained({name}.from_pretrained("BASE"), "DIR")', "```", ""]
    line = f"tokenrl train model={kind} model.path=BASE model/adapter=lora model.adapter.path=DIR"
    return [*lines, "```sh", f"{line}  # trains it further", "```", "", *_history(saved)]


def _reads_with_encoder(model: Pretrained) -> bool:
    from tokenrl_cli.model.encoder_decoder import ReadsWithEncoder

    return isinstance(model, ReadsWithEncoder)


def _auto_class(model: Pretrained) -> str:
    """The class of transformers that reads the network of a model from a directory."""
    if _reads_speech(model):
        return "AutoModelForSpeechSeq2Seq"
    return "AutoModelForSeq2SeqLM" if _reads_with_encoder(model) else "AutoModelForCausalLM"


def _base(model: Pretrained, config: dict[str, Any]) -> list[str]:
    """What the model was before: the name of its checkpoint, and its SHA-256."""
    lines = [
        f"* {key}: `{_name(config, key)}`, SHA-256 of its config and weights `{base.sha256}`"
        for key, base in model.bases.items()
    ]
    return ["Trained from:", "", *lines, ""] if lines else ["Trained from random weights.", ""]


def _name(config: dict[str, Any], key: str) -> str:
    """The name of a checkpoint that the setting `key` of the block model names, without its folders."""
    from tokenrl_cli.report.model_card import without_folders

    value: Any = config["model"]
    for part in key.split("."):
        value = value[part]
    return str(without_folders(value))


def _notes(notes: list[str]) -> list[str]:
    return [line for note in notes for line in (f"Note: {note}.", "")]


def _history(saved: Checkpoint) -> list[str]:
    """The sections on scores and training."""
    from tokenrl_cli import __version__
    from tokenrl_cli.files.records import read_json
    from tokenrl_cli.report import model_card

    folder = saved.path.parent.parent if saved.path.parent.name == "checkpoints" else None
    results, evaluations = None, []
    if folder is not None:
        if (folder / "results.json").is_file():
            results = read_json(folder / "results.json", "run")
        found = [read_json(file, "evaluation") for file in sorted(folder.glob("eval/*/results.json"))]
        evaluations = [each for each in found if Path(str(each.get("ckpt"))).name == saved.path.name]
    line = list(results.get("overrides") or []) if results else []
    lines = model_card.scores(evaluations, results, saved.step, "tokenrl eval ckpt=RUN")
    lines += model_card.training(saved.config, saved.step, saved.state["stage"], line)
    return [*lines, f"Written by `tokenrl export`, version {__version__}.", ""]
