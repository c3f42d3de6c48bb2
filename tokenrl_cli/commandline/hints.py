"""Suggestions for unknown keys: the same name elsewhere in the config, the name in other tools, a similar spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

STAGES = {
    "algorithm": "RL",
    "warm_start": "the warm start",
    "decode": "evaluation",
}  # what each block of train's config is used in
MANY = 4  # keys that a hint lists at most

# Our name -> names that other tools use for it.
SYNONYMS = {
    "lr": "learning_rate base_lr peak_lr",
    "clip_norm": "max_grad_norm gradient_clip_val grad_clip clip_grad_norm grad_clip_norm clip",
    "betas": "adam_betas",
    "eps": "adam_epsilon adam_eps",
    "schedule": (
        "lr_scheduler scheduler lr_schedule lr_scheduler_type warmup warmup_steps num_warmup_steps warmup_ratio"
    ),
    "batch_size": "train_batch_size per_device_train_batch_size bsz eval_batch_size_per_device",
    "eval_every": "eval_steps eval_interval val_check_interval validate_every eval_freq evaluation_steps",
    "checkpoint_every": "save_steps save_interval save_every save_freq checkpoint_interval save_frequency",
    "log_every": "logging_steps log_interval log_steps log_every_n_steps log_freq logging_interval",
    "keep_last": "save_total_limit keep_checkpoints max_to_keep keep_last_epochs",
    "monitor": "metric_for_best_model best_metric early_stopping_metric",
    "warm_start_patience": "patience early_stopping early_stopping_patience",
    "device": "gpus gpu num_gpus ngpu devices accelerator cuda use_cuda no_cuda use_cpu cpu",
    "precision": "fp16 bf16 amp half mixed_precision dtype torch_dtype",
    "threads": "num_threads torch_threads omp_num_threads",
    "samples_per_source": ("num_samples n_samples num_generations num_return_sequences group_size rollouts_per_prompt"),
    "beam_size": "num_beams beam beams beam_width",
    "length_penalty": "lenpen length_norm alpha",
    "max_length": "max_len max_new_tokens max_tokens_per_sample max_seq_len max_seq_length max_target_length",
    "temperature": "temp sampling_temperature",
    "top_p": "nucleus",
    "top_k": "topk",
    "kl_coef": "kl_coefficient beta_kl init_kl_coef kl_weight kl_beta beta",
    "entropy_coef": "entropy_coefficient ent_coef entropy_weight entropy_beta",
    "hidden": "hidden_size hidden_dim d_model dim width n_embd rnn_size units",
    "embedding": "embedding_size embedding_dim embed_dim emb_size d_embed",
    "layers": "num_layers n_layers n_layer depth num_hidden_layers",
    "heads": "num_heads n_heads n_head num_attention_heads",
    "dropout": "dropout_rate dropout_prob p_dropout",
    "seed": "random_seed manual_seed rng_seed",
    "data_root": "data_dir data_path dataset_dir root datadir",
    "resume": "resume_from resume_from_checkpoint resume_path continue_from resume_training",
    "init_from": "pretrained from_pretrained init_checkpoint load_from load warmstart_from model_path",
    "out": (
        "output_dir out_dir output_directory save_dir save_path log_dir logdir run_name run_dir name "
        "exp_name run experiment_name results_dir workdir work_dir"
    ),
    "ckpt": (
        "resume resume_from resume_from_checkpoint init_from run model checkpoint checkpoint_path "
        "ckpt_path load_checkpoint model_path"
    ),
    "input": "input_file source_file src infile",
    "output": "output_file outfile",
    "split": "eval_split subset",
    "imports": "plugins user_dir modules",
    "freeze": "frozen freeze_params freeze_layers freeze_encoder frozen_parameters freeze_parameters trainable",
    "samples": "num_examples_to_show n_show log_samples",
}

TRACKED = "every run writes metrics.jsonl, samples.jsonl and results.json in its directory; no tracker is built in"
ANSWERS = {  # names in other tools that no single key of ours replaces -> commands, what to do
    "epochs num_epochs n_epochs num_train_epochs max_epochs train_epochs epoch": (
        ("train", "validate"),
        "training is counted in steps: trainer.warm_start_steps=N, then trainer.steps=N of RL; "
        "algorithm.epochs, where an algorithm has it, is passes over a rollout",
    ),
    "max_steps num_steps total_steps train_steps max_updates total_timesteps num_train_steps iterations steps": (
        ("train", "validate"),
        "trainer.warm_start_steps=N for the warm start, trainer.steps=N for RL",
    ),
    "batch_size train_batch_size per_device_train_batch_size bsz": (
        ("train", "validate"),
        "trainer.warm_start_batch_size=N for the warm start, trainer.batch_size=N for RL",
    ),
    "logger loggers wandb tensorboard tensorboard_dir report_to tracker mlflow comet wandb_project project use_wandb": (
        ("train", "validate"),
        TRACKED,
    ),
    "ckpt checkpoint checkpoint_path ckpt_path load_checkpoint": (
        ("train", "validate"),
        "resume=RUN continues a run; init_from=RUN starts a new one from its weights",
    ),
    "optimizer optim": (
        ("train", "validate"),
        "optimizer@algorithm.optimizer=NAME for RL, optimizer@warm_start.optimizer=NAME for the warm start",
    ),
    "lr_scheduler scheduler lr_schedule lr_scheduler_type schedule": (
        ("train", "validate"),
        "optimizer/schedule@algorithm.optimizer.schedule=NAME for RL, "
        "optimizer/schedule@warm_start.optimizer.schedule=NAME for the warm start; tokenrl list optimizer/schedule",
    ),
    "epochs num_epochs lr learning_rate logger wandb max_steps num_steps patience early_stopping": (
        ("eval", "generate"),
        "that is a key of tokenrl train: this command trains nothing",
    ),
}
NAMES: dict[str, list[str]] = {}  # name in other tools -> our names, in the order to try them
for _ours, _words in SYNONYMS.items():
    for _word in _words.split():
        NAMES.setdefault(_word, []).append(_ours)


def leaves(config: Any, where: str = "") -> Iterator[str]:
    """Yields the full key of every value in a composed config, that of an empty dictionary included. Keys that begin
    with an underscore, and hydra, are left out with all below them. `where` is put before each key."""
    for key in config:
        path = f"{where}.{key}" if where else str(key)
        inside = _node(config, key)
        if path == "hydra" or str(key).startswith("_"):
            continue
        if isinstance(inside, Mapping) and len(inside):
            yield from leaves(inside, path)
        else:
            yield path


def _node(config: Any, key: Any) -> Any:
    """A value of a config without resolving ${...}: what that refers to may not exist yet."""
    return config._get_node(key) if isinstance(config, DictConfig) else config[key]


def suggestion(name: str, command: str, config: Any) -> tuple[str, str]:
    """Returns what to suggest for a key unknown to the command `command` whose last part is `name`, as (hint, remedy).
    The hint, such as " (did you mean 'a.b'?)", names keys of `config`, the composed config, that have this name or
    another tool's name for it; the remedy is a sentence on what to do instead. At most one of the two is not ""."""
    name = name.lower().replace("-", "_")
    known = list(leaves(config))
    for words, (commands, remedy) in ANSWERS.items():
        if name in words.split() and command in commands and name not in known:
            return "", remedy
    for word in (name, *NAMES.get(name, [])):
        if found := [path for path in known if path.rpartition(".")[2] == word]:
            return _listed(found, command), ""
    return "", ""


def similar_key(name: str, command: str, config: Any) -> str:
    """Returns a hint such as " (did you mean 'a.b' or 'c.b'?)" that names the keys of `config`, the composed config,
    whose last part is spelt most like `name`; "" if none is similar. At most MANY (4) keys: those with the fewest parts
    first, and of those with equally many parts the ones that the command `command` uses."""
    known = list(leaves(config))
    close = difflib.get_close_matches(name, {path.rpartition(".")[2] for path in known}, n=1)
    return _listed([path for path in known if path.rpartition(".")[2] == close[0]], command) if close else ""


def _listed(found: Sequence[str], command: str) -> str:
    """A hint that lists keys: " (did you mean 'a.b' of RL or 'c.b' of evaluation?)"."""
    train = command in ("train", "validate")
    shown = [f"'{path}'{_of(path) if train else ''}" for path in _ordered(found, command)[:MANY]]
    return f" (did you mean {' or '.join(shown)}?)"


def _of(path: str) -> str:
    """What a key of train belongs to, as " of RL"; "" if to nothing in particular."""
    stage = STAGES.get(path.partition(".")[0]) if path != "decode.max_length" else None  # that is training's, too
    return f" of {stage}" if stage else ""


def _ordered(found: Sequence[str], command: str) -> list[str]:
    """The keys in the order of a hint: those nearest to the root first, then those that the command uses."""
    first = ("algorithm", "warm_start") if command in ("train", "validate") else ("decode",)
    return sorted(found, key=lambda path: (path.count("."), path.partition(".")[0] not in first, path))
