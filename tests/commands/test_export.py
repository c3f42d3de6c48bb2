"""`tokenrl export`: what transformers reads is the model that was trained."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tokenrl_cli
from tests import pretrained
from tests.running import QUICK, TINY, tokenrl, train
from tokenrl_cli import hub
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.tokenizer.pretrained import UNKNOWN

transformers = pytest.importorskip("transformers")

Capture = pytest.CaptureFixture[str]
PLAIN = [
    each for each in [*TINY, *QUICK] if not each.startswith(("dataset.", "model", "dataset=", "reward", "trainer.m"))
]


@pytest.fixture(scope="module", autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes the folder of all tests data_root, so that what lies in it may be read again without naming it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENRL_DATA", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    pretrained.data(folder / "data")
    for kind in pretrained.KINDS:
        pretrained.checkpoint(folder / kind, kind)
    return folder


def words_of(home: Path, kind: str, *more: str) -> list[str]:
    """The overrides that choose a model, its tokenizer and the data."""
    words = [f"model={pretrained.KINDS[kind][0]}", f"model.path={home / kind}"]
    words += ["tokenizer=pretrained", f"tokenizer.path={home / kind}", "dataset=jsonl", f"dataset.path={home / 'data'}"]
    return [*words, "dataset.max_source_length=8", "reward=bleu", *more]


def trained(home: Path, kind: str, name: str, *more: str) -> Path:
    run = home / name
    if not run.exists():
        assert train(run, *PLAIN, *words_of(home, kind), "warm_start.optimizer.lr=1e-2", *more, tiny=False) == 0
    return run


def policy_of(run: Path) -> tuple[Any, Any]:
    """The model of the best checkpoint, and its tokenizer."""
    saved = checkpoint.load(checkpoint.find(run))
    facts = [], torch.device("cpu"), torch.float32, 1, saved.tokenizer_dir
    task = assembly.generation_task_of(saved.config, *facts)
    return assembly.policy_of(saved, saved.config, [], task), task.tokenizer


SOURCES = ["w1 w2 w3", "w4", "w5 w6"]
CASES = {
    "gpt2": [],
    "t5": ["model.recompute=true"],
    "bart": [],
    "bert": [],
    "gpt2-lora": ["model/adapter=lora", "model.adapter.r=4"],
    "t5-lora": ["model/adapter=lora", "model.adapter.targets=[q,v]"],
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "case",
    [each if each in ("t5", "bert", "gpt2-lora") else pytest.param(each, marks=pytest.mark.slow) for each in CASES],
)
def test_transformers_reads_the_same_logits_and_generates_the_same_tokens(
    home: Path, case: str, tmp_path: Path
) -> None:
    kind, adapter, _ = case.partition("-lora")
    run, place = trained(home, kind, f"run-{case}", *CASES[case]), tmp_path / "new" / "it"
    assert tokenrl("export", f"ckpt={run}", f"to={place}") == 0
    causal = kind == "gpt2"
    name = "AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM"
    network = getattr(transformers, name).from_pretrained(place).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    ours, own_tokenizer = policy_of(run)
    before = getattr(transformers, name).from_pretrained(home / kind) if kind != "bert" else None
    texts = tokenrl_cli.load(run).generate(SOURCES)
    assert len({each.text for each in texts}) > 1, "a model that says one thing for everything shows no difference"
    for source, said in zip(SOURCES, texts, strict=True):
        inputs = tokenizer(source, return_tensors="pt")
        ids = torch.tensor([own_tokenizer.encode(source)])
        actions = torch.tensor([[*own_tokenizer.encode("w3 w7 w1 w9"), own_tokenizer.eos_id]])
        theirs = torch.tensor(own_tokenizer.theirs)
        with torch.no_grad():
            wanted = ours(ids, torch.ones_like(ids, dtype=torch.bool), actions).logits
            found = logits(network, inputs, theirs, actions, causal)
            assert (found - wanted).abs().max() < (2e-4 if adapter else 1e-5)
            if before is not None:
                untrained = logits(before, inputs, theirs, actions, causal)
                assert (untrained - wanted).abs().max() > 1e-3, "it is not what was trained"
            generated = network.generate(**inputs)[0]
        text = tokenizer.decode(generated[inputs["input_ids"].shape[1] if causal else 0 :], skip_special_tokens=True)
        assert text.split() == [word for word in said.text.split() if word != UNKNOWN]
    assert sorted(os.listdir(tmp_path / "new")) == ["it"]
    files = os.listdir(place)
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert not [each for each in files if each.endswith((".bin", ".pt")) or each.startswith(".")]
    modes = {(place / each).stat().st_mode & 0o777 for each in files}
    assert modes == {(run / "config.yaml").stat().st_mode & 0o777}
    for file in place.rglob("*.*"):
        if file.suffix != ".safetensors":
            assert str(home) not in file.read_text("utf-8"), (
                "a directory that is published names no folder of this machine"
            )


@pytest.mark.parametrize("case", ["gpt2-lora", pytest.param("t5-lora", marks=pytest.mark.slow)])
def test_an_adapter_alone_is_what_peft_reads_and_a_run_starts_from(home: Path, case: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    kind, causal = case.partition("-lora")[0], case.startswith("gpt2")
    run, place = trained(home, kind, f"run-{case}", *CASES[case]), tmp_path / "adapter"
    assert tokenrl_cli.load(run).export(place, adapter=True) == place
    assert sorted(os.listdir(place)) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    cls = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForSeq2SeqLM
    with warnings.catch_warnings(action="ignore"):  # of what peft asks of transformers
        network = peft.PeftModel.from_pretrained(cls.from_pretrained(home / kind), place).eval()
    ours, own_tokenizer = policy_of(run)
    source, ids = "w1 w2 w3", torch.tensor([own_tokenizer.encode("w1 w2 w3")])
    actions = torch.tensor([[*own_tokenizer.encode("w3 w7 w1 w9"), own_tokenizer.eos_id]])
    inputs = transformers.AutoTokenizer.from_pretrained(home / kind)(source, return_tensors="pt")
    with torch.no_grad():
        wanted = ours(ids, torch.ones_like(ids, dtype=torch.bool), actions).logits
        found = logits(network, inputs, torch.tensor(own_tokenizer.theirs), actions, causal)
        assert (found - wanted).abs().max() < 1e-5
        with network.disable_adapter():
            untrained = logits(network, inputs, torch.tensor(own_tokenizer.theirs), actions, causal)
    assert (untrained - wanted).abs().max() > 1e-3, "it is not what was trained"
    start = [*PLAIN, *words_of(home, kind), "model/adapter=lora", f"model.adapter.path={place}"]
    steps = ["trainer.warm_start_steps=0", "trainer.steps=0"]
    assert train(tmp_path / "next", *start, *steps, tiny=False) == 0
    first, then = (checkpoint.load(checkpoint.find(each)).model for each in (run, tmp_path / "next"))
    assert first.keys() == then.keys()
    assert all(torch.equal(first[name], then[name]) for name in first)
    card = (place / "README.md").read_text("utf-8")
    assert f"* path: `{kind}`, SHA-256 of its config and weights `{hub.digest(home / kind, 'path')}`" in card
    assert str(home) not in card + (place / "adapter_config.json").read_text("utf-8")


@pytest.mark.slow
def test_without_an_adapter_of_its_own_a_run_exports_none(
    home: Path, own: Path, tmp_path: Path, capsys: Capture
) -> None:
    def mistake(run: Path) -> str:
        capsys.readouterr()
        assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'it'}", "adapter=true") == 2
        assert os.listdir(tmp_path) == []
        return capsys.readouterr().err

    assert "adapter=true: the model of this run has no adapter" in mistake(own)
    assert "adapter=true: the run has trained the weights themselves" in mistake(trained(home, "gpt2", "run-gpt2"))
    new = home / "run-new"
    assert train(new, *PLAIN, "model=bert", "dataset=reverse", "reward=bleu", tiny=False) == 0
    assert "adapter=true: the run has trained the weights themselves" in mistake(new)


def logits(network: Any, inputs: Any, theirs: torch.Tensor, actions: torch.Tensor, causal: bool) -> torch.Tensor:
    """The logits of a network of transformers for our tokens, at each of the actions [1, T]: [1, T, V]."""
    said = theirs[actions]
    if causal:
        ids = torch.cat([inputs["input_ids"], said[:, :-1]], 1)
        found = network(input_ids=ids).logits[:, inputs["input_ids"].shape[1] - 1 :]
    else:
        named = network.generation_config
        begin = [named.decoder_start_token_id, named.forced_bos_token_id]
        begun = torch.tensor([[each for each in begin if each is not None]])
        more = {"decoder_input_ids": torch.cat([begun, said[:, :-1]], 1)}
        found = network(**inputs, **more).logits[:, begun.shape[1] - 1 :]
    return found[..., theirs]  # type: ignore[no-any-return]


def test_the_card_has_data_reward_algorithm_and_scores_with_intervals(home: Path, tmp_path: Path) -> None:
    run = trained(home, "gpt2", "run-card", "algorithm=grpo")
    assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'before'}") == 0
    card = (tmp_path / "before" / "README.md").read_text("utf-8")
    assert "`tokenrl eval ckpt=RUN` measures it with intervals" in card
    assert tokenrl("eval", f"ckpt={run}", "batch_size=3", f"dataset.path={home / 'data'}") == 0
    assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'after'}") == 0
    card = (tmp_path / "after" / "README.md").read_text("utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head == {"library_name": "transformers", "tags": ["tokenrl", "reinforcement-learning"]}
    (results,) = [json.loads(file.read_text()) for file in run.glob("eval/*/results.json")]
    bleu = next(each for name, each in results["metrics"].items() if "bleu" in name)
    assert f"| {bleu['value']:.4g} |" in card
    assert bleu["signature"].replace("|", "\\|") in card
    assert "test, 6 examples" in card
    for text in ("algorithm=grpo", "reward=bleu", "tokenrl_cli.reward.bleu.Bleu", "path: data", "SHA-256", "`gpt2`"):
        assert text in card, text
    assert "the end of the run (" in card
    assert 'model = AutoModelForCausalLM.from_pretrained("DIR")' in card


@pytest.mark.slow
def test_the_card_says_how_a_source_is_put_into_a_prompt(home: Path, tmp_path: Path) -> None:
    own = ["tokenizer@source_tokenizer=pretrained", f"source_tokenizer.path={home / 'gpt2'}"]
    run = trained(home, "gpt2", "run-prompt", *own, "source_tokenizer.template='w1 {source} w2'")
    assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'it'}") == 0
    assert "tokenizer('w1 ' + source + ' w2'" in (tmp_path / "it" / "README.md").read_text("utf-8")
    assert not (tmp_path / "it" / "tokenizer").exists(), "it is the same tokenizer"


def test_a_model_from_a_gguf_file_becomes_a_plain_one(home: Path, tmp_path: Path) -> None:
    pretrained.gguf(home / "llama.gguf")
    gguf = [f"model.path={home / 'llama.gguf'}", "model.begin=[1]"]
    run = trained(home, "gpt2", "run-gguf", *gguf)
    assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'it'}") == 0
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "it").eval()
    ours, tokenizer = policy_of(run)
    ids, actions = torch.tensor([tokenizer.encode("w1 w2")]), torch.tensor([tokenizer.encode("w3 w4 w5")])
    theirs = torch.tensor(tokenizer.theirs)
    with torch.no_grad():
        prompt = {"input_ids": torch.cat([torch.tensor([[1]]), theirs[ids]], 1)}
        found = logits(network, prompt, theirs, actions, True)
        assert (found - ours(ids, torch.ones_like(ids, dtype=torch.bool), actions).logits).abs().max() < 1e-5
    config = json.loads((tmp_path / "it" / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert "quantization_config" not in config
    assert "`llama.gguf`" in (tmp_path / "it" / "README.md").read_text()


@pytest.mark.slow
def test_a_random_bert_is_written_with_tokenrls_own_tokenizer(tmp_path: Path) -> None:
    sizes = ["model.new.width=16", "model.new.heads=2", "model.new.feedforward=24", "model.new.layers=1"]
    plain = [each for each in [*TINY, *QUICK] if not each.startswith("model")]
    assert train(tmp_path / "run", *plain, "model=bert", *sizes, tiny=False) == 0
    assert tokenrl("export", f"ckpt={tmp_path / 'run'}", f"to={tmp_path / 'it'}") == 0
    network = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "it").eval()
    ours, tokenizer = policy_of(tmp_path / "run")
    ids, actions = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 0]])
    begun = torch.tensor([[tokenizer.size, 2, 1]])
    with torch.no_grad():
        found = network(input_ids=ids, decoder_input_ids=begun).logits[..., : tokenizer.size]
        assert (found - ours(ids, torch.ones_like(ids, dtype=torch.bool), actions).logits).abs().max() < 1e-5
    assert (tmp_path / "it" / "tokenizer" / "target").is_dir()


# ------------------------------------------------------------------------------------------------------ models of ours


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("own") / "run"
    assert train(run, *QUICK, "algorithm=dqn") == 0
    return run


def test_a_model_of_ours_is_written_as_its_tensors(own: Path, tmp_path: Path, capsys: Capture) -> None:
    place = tmp_path / "it"
    place.mkdir()  # an empty folder may be filled
    last = own / "checkpoints" / "last"
    assert tokenrl("export", f"ckpt={last}", f"to={place}") == 0
    told = capsys.readouterr().err
    saved = checkpoint.load(checkpoint.find(last))
    found = load_file(place / "model.safetensors")
    assert found.keys() == saved.model.keys()
    assert all(torch.equal(found[name], each) for name, each in saved.model.items())
    config = yaml.safe_load((place / "config.yaml").read_text())
    assert config["model"] == saved.config["model"]
    assert set(config) == {"model", "tokenizer", "decode", "dataset"}
    card = (place / "README.md").read_text()
    for name, each in found.items():
        assert f"| `{name}` | [{', '.join(map(str, each.shape))}] | float32 |" in card
    assert "the policy of dqn chooses tokens by learned values" in told
    assert "the policy of dqn chooses tokens by learned values" in card
    policy = {name for name in saved.algorithm if name.startswith("policy.")}
    assert load_file(place / "policy.safetensors").keys() == policy
    assert tokenrl("export", f"ckpt={own / 'checkpoints' / 'warm_start'}", f"to={tmp_path / 'start'}") == 0
    assert "chooses tokens" not in capsys.readouterr().err
    assert not (tmp_path / "start" / "policy.safetensors").exists()


def test_what_is_wrong_is_told_and_nothing_is_written(own: Path, tmp_path: Path, capsys: Capture) -> None:
    def mistake(*words: str) -> str:
        capsys.readouterr()
        assert tokenrl("export", *words) == 2
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return told

    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("kept")
    assert f"{full}: is not empty, and nothing is overwritten" in mistake(f"ckpt={own}", f"to={full}")
    assert "is a file" in mistake(f"ckpt={own}", f"to={full / 'file'}")
    assert "to: is missing" in mistake(f"ckpt={own}")
    assert "ckpt: is missing" in mistake("to=it")
    assert "there is no such directory" in mistake("ckpt=gone", "to=it")
    assert "there is no such key" in mistake(f"ckpt={own}", f"to={tmp_path / 'it'}", "format=gguf")
    copied = tmp_path / "run"
    shutil.copytree(own, copied, symlinks=True)
    weights = next(copied.glob("checkpoints/0*/model.safetensors"))
    for file in copied.glob("checkpoints/0*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    assert weights.name in mistake(f"ckpt={copied}", f"to={tmp_path / 'it'}")
    assert sorted(os.listdir(tmp_path)) == ["full", "run"]


@pytest.mark.slow
def test_a_base_that_has_gone_is_named_and_nothing_is_written(home: Path, tmp_path: Path, capsys: Capture) -> None:
    run = trained(home, "bart", "run-bart")
    (home / "bart").rename(home / "away")
    try:
        assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'it'}") == 2
    finally:
        (home / "away").rename(home / "bart")
    assert f"model.path: there is no directory {home / 'bart'}" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_run_in_python_exports_itself(own: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="chooses tokens by learned values"):
        assert tokenrl_cli.load(own / "checkpoints" / "last").export(tmp_path / "it") == tmp_path / "it"
    assert (tmp_path / "it" / "model.safetensors").is_file()


# ------------------------------------------------------------------------------------ a directory of transformers, read


def test_an_exported_model_is_evaluated_without_a_run_as_the_run_is(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run = trained(home, "bart", "run-bart")
    monkeypatch.chdir(tmp_path)
    assert tokenrl("export", f"ckpt={run}", "to=model") == 0
    there = words_of(home, "bart", "model.path=model", "tokenizer.path=model")
    decode = ["decode.max_length=6", "batch_size=4"]
    assert tokenrl("eval", f"ckpt={run}", "out=wanted", f"dataset.path={home / 'data'}", *decode) == 0
    capsys.readouterr()
    assert tokenrl("eval", *there, *decode) == 0
    assert "written to outputs" in capsys.readouterr().err
    (wanted,), (found,) = tmp_path.glob("wanted/*/"), tmp_path.glob("outputs/*/*/*/")
    assert found.name == "test-greedy-batch_size=4"
    for name in ("hypotheses.txt", "references.0.txt"):
        assert (found / name).read_text() == (wanted / name).read_text()
    before, after = (json.loads((each / "results.json").read_text()) for each in (wanted, found))
    assert after["metrics"] == before["metrics"]
    assert after["other"] == pytest.approx(before["other"], rel=1e-4)
    assert (after["settings"]["stage"], after["settings"]["step"], after["ckpt"]) == ("pretrained", 0, "model")
    assert after["settings"]["weights"] != before["settings"]["weights"]
    assert tokenrl("eval", *there, *decode, "out=it") == 0
    assert tokenrl("eval", *words_of(home, "bart"), *decode, "out=it") == 0
    names = sorted(os.listdir("it"))
    assert len(names) == 2, "other weights have a folder of their own"
    assert "checkpoints" not in os.listdir(tmp_path)
    assert tokenrl("eval", *there, *decode, "out=it") == 0
    assert sorted(os.listdir("it")) == names, "the same evaluation replaces its own results"
    assert tokenrl("eval", "-m", *there, *decode, "out=many", "split=val,test") == 0
    assert sorted(os.listdir("many")) == ["test-greedy-batch_size=4", "val-greedy-batch_size=4"]


def test_what_has_no_effect_or_nothing_to_evaluate_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)

    def mistake(*words: str) -> str:
        capsys.readouterr()
        assert tokenrl("eval", *words) == 2
        return capsys.readouterr().err

    good = words_of(home, "gpt2")
    assert "model: has random weights: there is nothing to evaluate" in mistake("model=lstm")
    assert "model=hf_seq2seq model.path=DIR" in mistake("split=val")
    assert "model.path: is missing" in mistake("model=hf_causal", *good[2:])
    for word in ("trainer.steps=5", "optimizer@algorithm.optimizer=sgd", "init_from=it"):
        assert f"{word}: has no effect: eval trains nothing" in mistake(*good, word)
    assert "there is no such key" in mistake(*good, "tokenised=1")
    assert "use model=hf_causal" in mistake(*words_of(home, "t5", f"model.path={home / 'gpt2'}"))
    assert "split=other: the data set has no such split" in mistake(*good, "split=other")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_a_directory(home: Path, tmp_path: Path, capsys: Capture) -> None:
    run = trained(home, "gpt2", "run-gpt2")
    assert tokenrl("export", f"ckpt={run}", f"to={tmp_path / 'it'}") == 0
    steps = ["trainer.warm_start_steps=0", "trainer.steps=0"]
    start = [*PLAIN, *words_of(home, "gpt2"), *steps]
    assert train(tmp_path / "new", *start, f"init_from={tmp_path / 'it'}", tiny=False) == 0
    saved = [checkpoint.load(checkpoint.find(each)).model for each in (run, tmp_path / "new")]
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])

    def mistake(*words: str) -> str:
        capsys.readouterr()
        assert train(tmp_path / "bad", *words, tiny=False) == 2
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert not (tmp_path / "bad").exists()
        return told

    own = [*TINY, *QUICK, f"init_from={home / 'gpt2'}"]
    told = mistake(*own)
    assert "is a pretrained checkpoint, whose weights do not fit model=recurrent" in told
    assert f"model=hf_causal model.path={home / 'gpt2'}, without init_from, starts from it" in told
    told = mistake(*start, f"init_from={home / 'bart'}")
    assert "use model=hf_seq2seq" in told
    shutil.copytree(home / "gpt2", tmp_path / "wide")
    wide = transformers.GPT2LMHeadModel(transformers.GPT2Config(**pretrained.NAMED, n_embd=32, n_layer=2, n_head=2))
    wide.save_pretrained(tmp_path / "wide")
    assert "its weights are of another model: " in mistake(*start, f"init_from={tmp_path / 'wide'}")
    told = mistake(*start, "init_from=gpt2-xl")
    assert "init_from=gpt2-xl: there is no such directory" in told
    assert "model=hf_causal model.path=gpt2-xl" in told


@pytest.mark.slow
def test_a_pretrained_model_elsewhere_is_not_read_for_a_run_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run = trained(home, "t5", "run-t5", *CASES["t5"])
    monkeypatch.delenv("TOKENRL_DATA")
    monkeypatch.chdir(tmp_path)
    assert tokenrl("export", f"ckpt={run}", "to=new") == 2
    assert f"model.path={home / 't5'}: lies outside data_root" in capsys.readouterr().err
    assert not Path("new").exists()
    other = tmp_path / "other"
    shutil.copytree(home / "t5", other)
    changed = json.loads((other / "config.json").read_text()) | {"changed": 1}
    (other / "config.json").write_text(json.dumps(changed))
    assert tokenrl("export", f"ckpt={run}", "to=new", f"model.path={other}") == 2
    assert f"model.path: {other} has the SHA-256 " in capsys.readouterr().err
    assert tokenrl("export", f"ckpt={run}", "to=new", f"model.path={home / 't5'}", "model.dtype=bfloat16") == 2
    assert "model.dtype=bfloat16: cannot be changed" in capsys.readouterr().err
    assert tokenrl("export", f"ckpt={run}", "to=there", f"model.path={home / 't5'}") == 0
    assert tokenrl_cli.load(run, overrides=[f"model.path={home / 't5'}"]).export("new") == Path("new")
