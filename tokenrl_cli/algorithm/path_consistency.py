"""Path consistency learning and its variants: a policy and state values that satisfy one equation along every stretch
of an episode (functional/consistency.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import one_more_column
from tokenrl_cli.algorithm.parts.data import Experience, Minibatch
from tokenrl_cli.algorithm.parts.exploration import Boltzmann, Exploration
from tokenrl_cli.algorithm.parts.prior import Reference, Uniform
from tokenrl_cli.algorithm.parts.state_value import GroupMean, Head, Tied
from tokenrl_cli.algorithm.value_based import Collector, LossOutput, ValueBased, ValueNetwork
from tokenrl_cli.config.ranges import Positive, Size
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.consistency import log_partition, one_token, zero_after_end
from tokenrl_cli.functional.masking import masked_rows, masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import Model, ModelModule, ModelOutput, Rollout, SettingError, Tokenizer
from tokenrl_cli.optim import Learning, Optimizer

Consistency = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
HEAD = "{here}/state_value=head"


class PathConsistency(ValueBased):
    """loss = mean over starts t of `consistency`: C_t^2 / 2, C_t = V(s_u) - V(s_t) + sum_{t <= k < u} r_k - tau l_k,
    l_k = log pi(a_k | s_k) - log prior(a_k | s_k), right on- and off-policy for every stretch.

    Nachum et al. 2017 (arXiv:1702.08892), with a prior 2018 (arXiv:1707.01891). tau is `temperature`. Paths start at
    all tokens, or with `every_state` false at the first of each episode. V by `state_value`. The policy is the model
    itself, so it begins as the warm start. From s_0 to the end, on episodes of the current policy, with any V, the
    gradient is -tau times that of E[R] - tau KL(pi || prior). V after the last token is 0; with `bootstrap_truncated`
    it is the estimate where an episode was cut at the limit.

    The constructor raises UserError for Boltzmann exploration, as there is no Q; for `every_state` false with a
    `consistency` that leaves tokens without a gradient then (`one_token`, or a `span`); and for state_value=group_mean
    with `every_state` or `bootstrap_truncated`, with a `priority`, with demonstrations but no fresh samples, or with
    fewer than two samples of a source.
    """

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        consistency: Consistency,
        every_state: bool,
        state_value: Head | Tied | GroupMean,
        prior: Uniform | Reference,
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        micro_batches: Size,
        optimizer: Callable[[Learning], Optimizer],
    ) -> None:
        _check_that_all_tokens_learn(consistency, every_state)
        if isinstance(exploration, Boltzmann):
            problem = "acts by Q-values, and this algorithm has none"
            raise SettingError("/exploration=boltzmann", problem, "{here}/exploration=none")
        if state_value.compares_samples:
            _check_comparison(every_state, bootstrap_truncated, data, samples_per_source)
        self.temperature, self.consistency, self.every_state = temperature, consistency, every_state
        self.state_value, self.prior = state_value, prior
        together = samples_per_source if state_value.compares_samples else 1
        network = ValueNetwork(model, {} if state_value.head is None else {"v": state_value.head}, train_trunk=True)
        collector = Collector(data, exploration, tokenizer, samples_per_source, max_length, seed)
        super().__init__(network, None, collector, data, together, bootstrap_truncated, micro_batches, optimizer)

    def prepare(self, minibatch: Minibatch) -> Minibatch:
        """For state_value=group_mean returns a copy of a whole minibatch with `source_values` [B]: V(s_0) estimated
        from all its episodes of the source, demonstrations included, for which the model reads the minibatch once more,
        without gradient. Call it before the minibatch is cut into micro-batches, as these cut groups. For another
        state_value returns the minibatch as it is."""
        if not self.state_value.compares_samples:
            return minibatch
        return replace(minibatch, source_values=self._source_values(minibatch.episodes))

    def compute_loss(self, minibatch: Minibatch) -> LossOutput:
        """Returns the loss of B rewarded episodes of T tokens as a `LossOutput`: the sum of the `consistency` losses
        over the tokens of these rows at which paths start, each row times its weight, divided by the number of starts
        in the whole minibatch.

        Gradients flow into the model, through every log-ratio that `consistency` does not stop, and into V as
        `state_value` lets them; the prior, the rewards and `source_values` are constants.

        Reads `source_values` [B] of the minibatch, which `prepare` must have set for state_value=group_mean; without
        them they are taken as 0. The td errors are the residuals C_t [B, T], 0 at padding. Metrics, not weighted, are
        sums over these rows: loss/consistency, consistency_residual (|C_t|), v/mean and q/mean over the starts of
        paths, divided by the same number; and log_ratio, of l_t over all tokens, divided by the number of tokens of the
        whole minibatch. `ranges` holds q and v at the starts, of which the least and the greatest are logged. Here
        Q(s_t, a_t) = V(s_t) + tau l_t, because a consistent policy is pi(a | s) = prior(a | s) exp((Q(s, a) - V(s)) /
        tau). Changes no parameter.
        """
        episodes, mask = minibatch.episodes, minibatch.episodes.mask
        log_ratios, logit_values, hidden = self._read(episodes)
        source_values = minibatch.source_values
        if source_values is None:
            source_values = logit_values.new_zeros(len(minibatch))
        values = self.state_value(hidden, logit_values, source_values)
        values = zero_after_end(values, mask, self.terminated(episodes))
        loss, residual = self.consistency(values, self.rewards(episodes), log_ratios, mask, self.temperature)
        # a consistent policy is pi(a | s) = prior(a | s) exp((Q(s, a) - V(s)) / tau)
        q = values[:, :-1] + self.temperature * log_ratios  # Q(s_t, a_t), [B, T]
        logged = {
            "loss/consistency": loss, "consistency_residual": residual.abs(), "v/mean": values[:, :-1], "q/mean": q,
        }  # fmt: skip
        output = self.mean_loss(minibatch, loss, residual, logged, {"q": q, "v": values[:, :-1]})
        output.metrics["log_ratio"] = masked_sum(log_ratios.detach(), mask) / minibatch.total_tokens
        return output

    def loss_mask(self, episodes: Rollout) -> Tensor:
        """Returns the tokens at which a path starts, [B, T] bool: all that are not padding, or with `every_state` false
        column 0 of each episode."""
        first = torch.zeros_like(episodes.mask)
        first[:, 0] = True
        return episodes.mask if self.every_state else first

    def loss_tokens(self, minibatch: Minibatch) -> Tensor | int:
        """Returns the number of starts of paths in the whole minibatch, [] or an int, also for a micro-batch of it: its
        tokens, or with `every_state` false its episodes."""
        return minibatch.total_tokens if self.every_state else minibatch.total_episodes

    def _read(self, episodes: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Log-ratios l [B, T]; tau (log sum exp of the logits - that of the prior's) [B, T + 1]; and hidden states
        [B, T + 1, D]."""
        actions = one_more_column(episodes.actions)
        output = self.network.read(episodes)
        prior = self.prior.read(episodes)
        terms = partial(self._log_ratios, output, prior)
        log_ratios, logit_values = in_pieces(terms, self.size, output.hidden, prior.hidden, actions)
        return log_ratios[:, :-1], logit_values, output.hidden

    def _log_ratios(
        self, output: ModelOutput, prior: ModelOutput, hidden: Tensor, prior_hidden: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of M states: l of the token taken, and tau (log sum_a exp z(s, a) - log sum_a exp z_prior(s, a)).

        hidden, prior_hidden [M, D], actions [M] -> [M] each.
        """
        logits = precise(output.project(hidden))  # [M, V]
        prior_logits = precise(prior.project(prior_hidden)).expand(-1, self.size)
        index = actions.unsqueeze(-1)
        difference = (logits.gather(-1, index) - prior_logits.gather(-1, index)).squeeze(-1)
        log_normaliser = logits.logsumexp(-1) - self.prior.log_normaliser(prior_logits)
        return difference - log_normaliser, self.temperature * log_normaliser

    @torch.no_grad()
    def _source_values(self, episodes: Rollout) -> Tensor:
        """V(s_0) [B] of the source of each episode, as all episodes of that source estimate it."""
        log_ratios, _, _ = self._read(episodes)
        scores, sums = (masked_rows(each, episodes.mask) for each in (self.rewards(episodes), log_ratios))
        return log_partition(scores, sums.to(scores.dtype), episodes.group, self.temperature).to(sums.dtype)

    def policy(self) -> Model:
        """Returns the model itself, not a copy, in its present mode: later updates change it."""
        policy: Model = self.model
        return policy

    def _saved_parts(self) -> dict[str, Any]:
        """The policy is the model, and needs no head."""
        parts = super()._saved_parts()
        parts["heads"] = parts.pop("policy.heads")
        if self.prior.model is not None:
            parts["prior"] = self.prior.model
        return parts


def _check_that_all_tokens_learn(consistency: Consistency, every_state: bool) -> None:
    """Raises UserError where paths start at the first token alone and do not go through the others."""
    function, keywords = consistency, dict[str, Any]()
    if isinstance(consistency, partial):  # as a block of the config is built
        function, keywords = consistency.func, consistency.keywords
    if not every_state and (function is one_token or keywords.get("span") is not None):
        problem = "leaves all tokens but the first to paths, and only whole ones go through them all"
        remedy = "{here}.every_state=true, or {here}/consistency=path {here}.consistency.span=null"
        raise SettingError("every_state=false", problem, remedy)


def _check_comparison(every_state: bool, bootstrap_truncated: bool, data: Experience, samples_per_source: int) -> None:
    """Raises UserError where V(s_0) is the estimate by all samples of a source, and another setting rules that out."""
    if every_state:
        problem = "tells what a source is worth, nothing of the states inside a text"
        raise SettingError("/state_value=group_mean", problem, f"{{here}}.every_state=false, or {HEAD}")
    if bootstrap_truncated:
        problem = "asks what the state is worth where a text was cut, and group_mean does not tell"
        raise SettingError("bootstrap_truncated=true", problem, HEAD)
    if data.priority > 0:
        problem = "draws episodes one by one, and group_mean compares all samples of a source"
        raise SettingError("data.priority", problem, f"{{here}}.data.priority=0, or {HEAD}")
    if data.demonstrated > 0 and data.fresh == 0:
        problem = "leaves demonstrations alone, and group_mean compares them with fresh samples of their source"
        raise SettingError("data.fresh=0", problem, f"{{here}}.data.fresh=0.5, say, or {HEAD}")
    if samples_per_source < 2:
        problem = f"must be at least 2 to compare, got {samples_per_source}"
        raise SettingError("samples_per_source", problem, HEAD)
