"""Normalised advantages equal values computed by hand; padding does not count; equal scores give 0."""

from __future__ import annotations

import pytest
import torch

from tokenrl_cli.functional import normalisation

SCORES = torch.tensor([[1.0, 3.0, 8.0], [2.0, 2.0, 5.0]], dtype=torch.float64)
VALID = torch.tensor([[True, True, False], [True, True, False]])
ADVANTAGES = torch.tensor([[[1.0, 2.0]] * 3, [[4.0, -4.0]] * 3], dtype=torch.float64)


def test_the_deviation_of_a_group_is_that_of_its_valid_scores() -> None:
    scaled = normalisation.group_std(ADVANTAGES, SCORES, VALID)
    assert torch.allclose(scaled[0], ADVANTAGES[0] / 2**0.5)
    assert not scaled[1].any()  # all the same: nothing, not noise over a tiny number


def test_the_deviation_of_a_batch_is_one_number() -> None:
    scaled = normalisation.batch_std(ADVANTAGES, SCORES, VALID)
    expected = torch.tensor([1.0, 3.0, 2.0, 2.0]).std()
    assert torch.allclose(scaled, ADVANTAGES / expected)


def test_whitened_tokens_have_mean_0_and_variance_1_and_padding_does_not_count() -> None:
    """Traps 21 and 22: the mean is subtracted, and the result does not depend on the width of the padding."""
    mask = torch.tensor([[[True, True], [True, False], [False, False]], [[True, True], [True, True], [False, False]]])
    junk = ADVANTAGES.masked_fill(~mask, 1e6)
    white = normalisation.whiten(junk, mask)
    assert torch.equal(white, normalisation.whiten(ADVANTAGES, mask))
    assert not white[~mask].any()
    assert abs(float(white[mask].mean())) < 1e-15
    assert float(white[mask].var(correction=0)) == pytest.approx(1)
    wide = torch.nn.functional.pad(ADVANTAGES, (0, 3), value=7.0)
    assert torch.allclose(normalisation.whiten(wide, torch.nn.functional.pad(mask, (0, 3)))[..., :2], white)


def test_a_single_token_has_no_deviation() -> None:
    one = torch.ones(1, 1, 1, dtype=torch.bool)
    assert not normalisation.whiten(torch.full((1, 1, 1), 5.0), one).any()
    assert not normalisation.batch_std(torch.ones(1, 1, 1), torch.ones(1, 1), one[0]).any()


def test_an_invalid_sample_has_no_share_of_the_risk() -> None:
    likelihoods = torch.tensor([[-1.0, -2.0, -0.1], [-1.0, -1.0, -9.0]], dtype=torch.float64)
    found = normalisation.self_normalised(ADVANTAGES, SCORES, VALID, likelihoods, 1.0)
    share = torch.tensor([-1.0, -2.0]).softmax(0)
    gain = share[0] * share[1] * (1.0 - 3.0) * 2
    assert found[0, :, 0].tolist() == pytest.approx([float(gain), -float(gain), 0], abs=1e-7)
    assert not found[1].any()
