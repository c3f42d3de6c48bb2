"""Pretrained checkpoints on disk: where the Hugging Face library transformers meets the rest of the package.

A checkpoint is a directory with config.json and weights in *.safetensors, or a GGUF file. Only these are read, and
nothing in them is executed: no pickle, no code of a repository (`trust_remote_code`). transformers is imported where it
is used, never with this module. Errors are SettingErrors at `where`, the setting that names the checkpoint, relative to
the block of the part that reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.interfaces import SettingError

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "tf_model.h5", "flax_model.msgpack")
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.spm")  # what is downloaded of a hub repository
HUB_ID = r"[\w.-]+(/[\w.-]+)?"
SECONDS = 5  # for the hub to answer


def directory(path: str, where: str) -> Path:
    """The local directory of a checkpoint, or the path of its GGUF file. A name on the Hugging Face hub, such as
    "google/flan-t5-small", is downloaded into the hub's cache first, or taken from there.

    Raises SettingError with this `where`, the setting that names the checkpoint, where there is no such directory or
    file, where the name cannot be downloaded, for a directory that has neither config.json nor a GGUF file, or more
    than one GGUF file, and without the package transformers.
    """
    require_extra("hf", where, "transformers")
    found = Path(path).expanduser()
    if found.is_file():
        if found.suffix != ".gguf":
            raise SettingError(where, f"{path} is a file: it must be a directory with {CONFIG}, or a GGUF file")
        return found
    if not found.is_dir():
        found = _downloaded(path, where)
    if (found / CONFIG).is_file():
        return found
    files = sorted(found.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        raise SettingError(where, f"{path} has {len(files)} GGUF files", f"name one of them: {files[0]}")
    problem = f"{path} has no {CONFIG}: it is not the directory of a pretrained model"
    raise SettingError(where, problem, "name the directory that `save_pretrained` wrote or the hub gave")


def _downloaded(path: str, where: str) -> Path:
    """The directory of a repository of the hub, downloaded where it is not in the cache."""
    if not re.fullmatch(HUB_ID, path):
        raise SettingError(where, f"there is no directory {path}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    silence = unreachable()
    try:
        with quiet():
            return Path(snapshot_download(path, allow_patterns=list(WANTED), local_files_only=bool(silence)))
    except HFValidationError:
        raise SettingError(where, f"there is no directory {path}") from None
    except Exception as error:  # of the network, the hub or the disk: each library below raises kinds of its own
        cause = silence or str(error).strip().partition("\n")[0]
        problem = f"there is no directory {path}, and it cannot be downloaded from the Hugging Face hub: {cause}"
        remedy = f"with a network: hf download {path} --local-dir DIR; copy DIR here, and name it instead"
        raise SettingError(where, problem, remedy) from None


def unreachable() -> str:
    """Returns why the Hugging Face hub cannot be reached; "" where it answers, whatever it says. Sends one request
    and waits SECONDS at most: the libraries of the hub try again for half a minute, or wait without an end."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # of the network, a proxy or the setting HF_HUB_OFFLINE, of kinds that versions change
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Context manager: switches off the progress bars and log messages of transformers and huggingface_hub, for what
    matters of them is an error here, and restores both afterwards. Both packages must be installed."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    level, bars, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.set_verbosity(50)  # only what is critical
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()


def _place(path: Path) -> tuple[str, dict[str, Any]]:
    """The arguments by which transformers finds a checkpoint, and by which it runs no code of it."""
    safely: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.suffix == ".gguf":
        return str(path.parent), safely | {"gguf_file": path.name}
    return str(path), safely


def config(path: Path, where: str) -> Any:
    """The config of a checkpoint, a transformers.PreTrainedConfig. `path` is what `directory` returned.

    Raises SettingError with this `where`, the setting that names the checkpoint, where the config cannot be read (that
    of a GGUF file: without the package gguf, too), or describes an architecture that transformers does not have: one
    that would need code from its repository is refused, and that code is not run.
    """
    from transformers import AutoConfig

    if path.suffix == ".gguf":
        require_extra("hf", where, "gguf")
        plain: dict[str, Any] = {}
    else:
        plain = read_json(path / CONFIG, where)
    folder, arguments = _place(path)
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder, **arguments)
    except Exception as error:  # transformers raises ValueError, OSError, KeyError, TypeError and kinds of its own
        if plain.get("auto_map"):
            kind = plain.get("model_type", "its model")
            problem = f"{path} needs code of its own for {kind!r} (trust_remote_code), which is never run"
            remedy = "choose a checkpoint of an architecture that is part of transformers"
            raise SettingError(where, problem, remedy) from None
        cause = str(error).strip().partition("\n")[0]
        if path.suffix == ".gguf":
            problem = f"{path} is no GGUF file of a model, or it is truncated or damaged: {cause}"
            raise SettingError(where, problem, "copy it again") from None
        raise SettingError(where, f"{path} cannot be read as the config of a pretrained model: {cause}") from None


def read_json(file: Path, where: str) -> dict[str, Any]:
    """Returns the dictionary in a JSON file of a checkpoint. Raises SettingError with this `where`, the setting that
    names the checkpoint, if the file is missing, is not UTF-8 or no JSON, or holds anything but a dictionary."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(where, f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise SettingError(where, f"{file} must hold a dictionary")
    return value


def weight_files(path: Path, where: str) -> list[Path]:
    """The files that hold the weights of a checkpoint, sorted: its *.safetensors, or the one GGUF file. `path` is what
    `directory` returned; no file of weights is opened.

    Raises SettingError with this `where`, the setting that names the checkpoint, where there are no weights, where a
    file that the index names is missing, and where there are only pickled weights, which can run code when they are
    read: the error says how to convert them.
    """
    if path.suffix == ".gguf":
        return [path]
    if (path / INDEX).is_file():
        names = read_json(path / INDEX, where).get("weight_map")
        named = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
        if missing := [name for name in named if not (path / name).is_file()]:
            raise SettingError(where, f"{path / missing[0]} is missing: {INDEX} names it", "copy the checkpoint again")
        if named:
            return [path / name for name in named]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    pickled = [file for pattern in PICKLED for file in sorted(path.glob(pattern))]
    if pickled:
        problem = f"{pickled[0]} holds pickled weights, which can run code when they are read; they are not"
        convert = "AutoModel.from_pretrained(DIR).save_pretrained(NEW)"
        remedy = f"if you trust it, convert it once, with the class of its model: {convert} writes safetensors"
        raise SettingError(where, problem, remedy)
    raise SettingError(where, f"{path} has no weights: there is no model.safetensors", "copy the checkpoint again")


def _require_whole(files: list[Path], where: str) -> None:
    """Raises SettingError for a safetensors file that is truncated or damaged; reads only the headers."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt"):
                    pass
            except (SafetensorError, OSError) as error:
                problem = f"{file} is truncated or damaged: {error}"
                raise SettingError(where, problem, "copy the checkpoint again") from None


def _none(_: str) -> bool:
    return False


def weights(
    path: Path, config: Any, auto_class: Any, where: str, may_lack: Callable[[str], bool] = _none, **arguments: Any
) -> Any:
    """The model of a checkpoint with its weights: a new transformers.PreTrainedModel on the CPU, in evaluation mode.

    `path` and `config` are what `directory` and `config` returned, `auto_class` is the class to load with, such as
    transformers.AutoModelForCausalLM, and `arguments` go to its `from_pretrained`, such as `dtype`. Weights whose names
    `may_lack` accepts may be missing: they are initialised from torch's global generator. Raises SettingError with this
    `where`, the setting that names the checkpoint, where weights are pickled, truncated, missing or of other shapes,
    and where `auto_class` does not have the architecture.
    """
    _require_whole(weight_files(path, where), where)
    folder, place = _place(path)
    if path.suffix != ".gguf":
        place["use_safetensors"] = True
    try:
        with quiet():
            model, found = auto_class.from_pretrained(
                folder, config=config, output_loading_info=True, **place, **arguments
            )
    except Exception as error:  # transformers raises ValueError, OSError, RuntimeError and kinds of its own
        cause = str(error).strip().partition("\n")[0]
        raise SettingError(where, f"the weights of {path} cannot be read: {cause}") from error
    if lacking := sorted(name for name in found["missing_keys"] if not may_lack(name)):
        problem = f"{path} lacks {len(lacking)} of the weights of its architecture, such as {lacking[0]}"
        raise SettingError(where, problem, "its config.json is of another model, or the checkpoint is not whole")
    return model


def digest(path: Path, where: str) -> str:
    """The SHA-256 of a checkpoint, 64 hexadecimal digits: of its config and of every file of its weights, by name, all
    of which are read. `path` is what `directory` returned. Raises SettingError with this `where`, the setting that
    names the checkpoint, if weights are missing or pickled."""
    files = weight_files(path, where)
    return digest_of(files if path.suffix == ".gguf" else [path / CONFIG, *files])


def digest_of(files: Iterable[Path]) -> str:
    """The SHA-256 of the names, without folders, and the contents of files in the given order, 64 hexadecimal digits.
    Raises OSError where one cannot be read."""
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            whole.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


VOCABULARIES = ("tokenizer.json", "vocab.*", "vocab-*.json", "*-vocab.json", "*.model", "*.spm")  # files that hold one


def tokenizer(path: Path, where: str) -> Any:
    """The tokenizer of a checkpoint as transformers reads it, a transformers.PreTrainedTokenizerBase. `path` is what
    `directory` returned.

    Raises SettingError with this `where`, the setting that names the checkpoint, where the checkpoint has no tokenizer,
    where that cannot be read, and where the tokenizer needs code from its repository, which is not run.
    """
    from transformers import AutoTokenizer

    if not _has_tokenizer(path):
        problem = f"{path} has no tokenizer: there is no tokenizer.json, and no other file of a vocabulary"
        remedy = "tokenizer.save_pretrained(DIR) of transformers writes one beside the model"
        raise SettingError(where, problem, remedy)
    file = path / "tokenizer_config.json"
    if path.suffix != ".gguf" and file.is_file() and read_json(file, where).get("auto_map"):
        # transformers would not run it either, but for some kinds of models take another tokenizer instead
        problem = f"the tokenizer of {path} needs code of its own (trust_remote_code), which is never run"
        raise SettingError(where, problem, "choose a checkpoint whose tokenizer is part of transformers")
    folder, place = _place(path)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that would make a tokenizer better, of formats that are old
            return AutoTokenizer.from_pretrained(folder, **place)
    except Exception as error:  # as in `config`
        if path.suffix == ".gguf":
            config(path, where)  # of a damaged file it says so
            if isinstance(error, KeyError):
                remedy = "for the tokenizer name the directory of the model that it was made of: tokenizer.path=DIR"
                raise SettingError(where, f"{path} holds no tokenizer", remedy) from None
        cause = str(error).strip().partition("\n")[0]
        raise SettingError(where, f"the tokenizer of {path} cannot be read: {cause}") from None


def _has_tokenizer(path: Path) -> bool:
    """Whether there is a file of a vocabulary, or a GGUF file, which holds one."""
    return path.suffix == ".gguf" or any(next(path.glob(pattern), None) for pattern in VOCABULARIES)


def frame(path: Path, where: str) -> tuple[list[int], list[int]]:
    """The ids that the checkpoint's own tokenizer puts before and after every text, such as ([], [EOS]) of T5 and
    ([CLS], [SEP]) of BERT; ([], []) where there is no tokenizer beside the weights. `path` is what `directory`
    returned. Raises SettingError with this `where`, the setting that names the checkpoint, if the tokenizer cannot be
    read."""
    if (path / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            engine = Tokenizer.from_file(str(path / "tokenizer.json"))
            engine.no_padding()
            engine.no_truncation()
            encoded = engine.encode("a")
        except Exception as error:  # the library raises bare Exception
            raise SettingError(where, f"{path / 'tokenizer.json'} cannot be read: {error}") from None
        return _around(encoded.ids, [bool(each) for each in encoded.special_tokens_mask])
    if not _has_tokenizer(path):
        return [], []
    library = tokenizer(path, where)
    with warnings.catch_warnings(action="ignore"):
        whole, bare = library("a")["input_ids"], library("a", add_special_tokens=False)["input_ids"]
    start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return list(whole[:start]), list(whole[start + len(bare) :])


def _around(ids: list[int], special: list[bool]) -> tuple[list[int], list[int]]:
    """The special ids before and after a text."""
    if all(special):
        return list(ids), []
    first, last = special.index(False), len(special) - special[::-1].index(False)
    return list(ids[:first]), list(ids[last:])


EXTRACTORS = ("preprocessor_config.json", "processor_config.json")  # files that describe a feature extractor


def feature_extractor(path: Path, where: str) -> Any:
    """The feature extractor of a checkpoint for speech as transformers reads it, a new
    transformers.SequenceFeatureExtractor. `path` is a directory that has one of the files EXTRACTORS.

    Raises SettingError with this `where`, the setting that names the checkpoint, where there is none of them, where it
    cannot be read, and where it would need code from its repository, which is not run.
    """
    from transformers import AutoFeatureExtractor

    if not any((path / name).is_file() for name in EXTRACTORS):
        problem = f"{path} has no feature extractor: there is no {EXTRACTORS[0]}"
        remedy = "choose a checkpoint for speech; feature_extractor.save_pretrained(DIR) of transformers writes it"
        raise SettingError(where, problem, remedy)
    folder, place = _place(path)
    try:
        with quiet():
            return AutoFeatureExtractor.from_pretrained(folder, **place)
    except Exception as error:  # as in `config`
        cause = str(error).strip().partition("\n")[0]
        raise SettingError(where, f"the feature extractor of {path} cannot be read: {cause}") from None


def suppressed(path: Path, where: str) -> list[int]:
    """The ids that `generate` of transformers never chooses, by the `suppress_tokens` of generation_config.json in the
    directory `path`, as those of Whisper for what is not spoken; [] where it names none. Raises SettingError with this
    `where` if the file cannot be read."""
    file = path / "generation_config.json"
    found = read_json(file, where).get("suppress_tokens") if file.is_file() else None
    return [each for each in found if isinstance(each, int)] if isinstance(found, list) else []
