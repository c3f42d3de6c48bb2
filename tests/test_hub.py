"""Checkpoints on disk: only safetensors and GGUF are read, nothing in them is run, and every error says what to do."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pretrained
from tokenrl_cli import hub
from tokenrl_cli.config import extras
from tokenrl_cli.interfaces import UserError

transformers = pytest.importorskip("transformers")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of a tiny GPT-2."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def read(place: Path) -> Any:
    config = hub.config(place, "path")
    return hub.weights(place, config, transformers.AutoModelForCausalLM, "path", dtype=torch.float32)


def test_a_checkpoint_is_read_with_its_weights(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    model = read(hub.directory(str(place), "path"))
    wanted = transformers.GPT2LMHeadModel.from_pretrained(place)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), wanted.parameters(), strict=True))
    assert not model.training
    read(place)
    assert "Loading" not in capfd.readouterr().err.partition("\n")[2], "of ours: no bars"


def test_without_the_packages_the_error_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UserError) as refused:
        hub.directory(str(place), "path")
    assert str(refused.value) == (
        "path: needs the package transformers, which is not installed\n  pip install 'tokenrl[hf]'"
    )


def test_a_place_without_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"has no config\.json: it is not the directory of a pretrained model"):
        hub.directory(str(tmp_path), "path")
    with pytest.raises(UserError, match=r"^path: there is no directory /nowhere/at/all$"):
        hub.directory("/nowhere/at/all", "path")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"it must be a directory with config.json, or a GGUF file"):
        hub.directory(str(tmp_path / "weights.bin"), "path")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"has 2 GGUF files\n  name one of them: .*a\.gguf"):
        hub.directory(str(tmp_path), "path")
    assert hub.directory(str(tmp_path / "b.gguf"), "path") == tmp_path / "b.gguf"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the hub's cache, where nothing listens at the address of the hub."""
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_name_of_the_hub_without_a_network_says_at_once_what_to_download(no_network: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as refused:
        hub.directory("google/flan-t5-small", "path")
    assert time.monotonic() - start < 3
    assert "cannot be downloaded from the Hugging Face hub: ConnectError: " in str(refused.value)
    assert "hf download google/flan-t5-small --local-dir DIR; copy DIR here" in str(refused.value)


def test_without_a_network_a_checkpoint_of_the_hub_comes_from_its_cache(no_network: Path, place: Path) -> None:
    folder, commit = no_network / "models--google--tiny", "a" * 40
    shutil.copytree(place, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    assert hub.directory("google/tiny", "path") == folder / "snapshots" / commit


def test_a_hub_that_answers_is_asked_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    import huggingface_hub

    asked: list[Any] = []

    def download(*_: Any, **given: Any) -> str:
        asked.append(given["local_files_only"])
        raise OSError("401 Client Error.\nand more")

    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # 501 to everything
        monkeypatch.setattr(BaseHTTPRequestHandler, "log_message", lambda *_: None)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(UserError, match=r"from the Hugging Face hub: 401 Client Error\.\n"):
            hub.directory("google/flan-t5-small", "path")
    assert asked == [False]


def test_a_damaged_gguf_file_is_named(tmp_path: Path) -> None:
    file = pretrained.gguf(tmp_path / "tiny.gguf")
    whole = file.read_bytes()
    with pytest.raises(UserError, match=r"^path: .*tiny\.gguf holds no tokenizer"):
        hub.tokenizer(file, "path")
    for content in (whole[: len(whole) // 2], whole[:-50], whole[:300], b"hello", b""):
        file.write_bytes(content)
        for read in (hub.config, hub.tokenizer):
            with pytest.raises(
                UserError, match=r"^path: .*tiny\.gguf is no GGUF file of a model, or it is truncated or"
            ):
                read(hub.directory(str(file), "path"), "path")


def test_the_home_directory_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place.parent))
    assert hub.directory("~/gpt2", "path") == place


def test_a_damaged_config_is_refused(place: Path) -> None:
    (place / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read as JSON"):
        hub.config(place, "path")
    (place / "config.json").write_text('{"model_type": "no_such"}')
    with pytest.raises(UserError, match=r"cannot be read as the config of a pretrained model: .*no_such"):
        hub.config(place, "path")


def test_code_of_a_checkpoint_is_refused_and_never_run(place: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    (place / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\n")
    auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}
    (place / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    with pytest.raises(UserError, match=r"needs code of its own for 'evil' \(trust_remote_code\), which is never run"):
        hub.config(place, "path")
    assert not mark.exists()


def test_pickled_weights_are_refused_with_how_to_convert_them(place: Path) -> None:
    (place / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights: there is no model\.safetensors"):
        read(place)
    (place / "pytorch_model.bin").write_bytes(b"no pickle at all")
    with pytest.raises(UserError, match=r"holds pickled weights, .*\n  .*save_pretrained\(NEW\) writes safetensors"):
        read(place)


def test_truncated_weights_are_refused_by_name(place: Path) -> None:
    file = place / "model.safetensors"
    whole = file.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:5], b""):
        file.write_bytes(part)
        with pytest.raises(UserError, match=r"model\.safetensors is truncated or damaged"):
            read(place)
    file.unlink()
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    with pytest.raises(UserError, match=r"one\.safetensors is missing: model\.safetensors\.index\.json names it"):
        read(place)


def test_weights_of_another_model_are_refused(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    values = load_file(place / "model.safetensors")
    lacking = {name: value for name, value in values.items() if "ln_f" not in name}
    save_file(lacking, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 2 of the weights of its architecture, such as transformer\.ln_f\.bias"):
        read(place)
    plain = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(plain | {"vocab_size": 21}))
    with pytest.raises(UserError, match=r"the weights of .* cannot be read"):
        read(place)


def test_the_digest_changes_with_any_byte_of_config_or_weights(place: Path) -> None:
    before = hub.digest(place, "path")
    assert len(before) == 64
    assert hub.digest(place, "path") == before
    for name in ("model.safetensors", "config.json"):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[:-1] + b" ")
        assert hub.digest(place, "path") != before
        (place / name).write_bytes(content)
    (place / "notes.md").write_text("any")
    assert hub.digest(place, "path") == before


def test_the_frame_is_what_the_tokenizer_puts_around_a_text(place: Path) -> None:
    from tokenizers import Tokenizer, models, processors

    assert hub.frame(place, "path") == ([], [])
    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "a": 2, "?": 3}, unk_token="?"))
    pair = [("[CLS]", 0), ("[SEP]", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP] [SEP]", special_tokens=pair)
    tokenizer.enable_padding(length=8, pad_id=3)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(place / "tokenizer.json"))
    assert hub.frame(place, "path") == ([0], [1, 1])
    (place / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        hub.frame(place, "path")
