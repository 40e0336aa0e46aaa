"""Targets and advantages on trajectories that are worked out by hand."""

import math

import pytest
import torch

from spikecore_rl_agents.actions import Choice, Gaussian
from spikecore_rl_agents.advantages import double_q, duel, explained_variance, gae, one_step_targets
from spikecore_rl_agents.ppo import clipped_loss

GAMMA, LAM = 0.5, 0.5


def column(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).unsqueeze(1)


def advantages(terminated, truncated, next_values, lam=LAM):
    rewards, values = column(1.0, 2.0, 3.0), column(4.0, 6.0, 8.0)
    ends = column(*terminated, dtype=torch.bool), column(*truncated, dtype=torch.bool)
    return gae(rewards, values, column(*next_values), *ends, GAMMA, lam).squeeze(1).tolist()


def test_gae_of_a_running_episode():
    # delta = 1 + 3 - 4, 2 + 4 - 6, 3 + 5 - 8 = 0, 0, 0: change the last value to see lambda
    assert advantages([0, 0, 0], [0, 0, 0], [6.0, 8.0, 10.0]) == [0.0, 0.0, 0.0]
    # delta_2 = 3 + 6 - 8 = 1;  A = 1/16, 1/4, 1
    assert advantages([0, 0, 0], [0, 0, 0], [6.0, 8.0, 12.0]) == [0.0625, 0.25, 1.0]


def test_gae_does_not_look_past_a_termination():
    # delta_1 = 2 - 6 = -4, nothing of step 2;  delta_0 = 0, A_0 = 0.25 * -4
    assert advantages([0, 1, 0], [0, 0, 0], [6.0, 8.0, 12.0]) == [-1.0, -4.0, 1.0]


def test_gae_takes_the_value_of_the_last_observation_where_an_episode_was_cut():
    # delta_1 = 2 + 0.5 * 20 - 6 = 6, with the value of what followed, but none of the next episode's advantage
    assert advantages([0, 0, 0], [0, 1, 0], [6.0, 20.0, 12.0]) == [1.5, 6.0, 1.0]


def test_gae_ignores_the_value_after_a_termination_even_if_it_is_not_a_number():
    assert advantages([0, 1, 0], [0, 0, 0], [6.0, math.nan, 12.0]) == [-1.0, -4.0, 1.0]


def test_lambda_1_gives_returns_of_n_steps():
    # R_0 = 1 + 2/2 + 3/4 + 12/8 = 4.25;  R_1 = 2 + 3/2 + 12/4 = 6.5;  R_2 = 3 + 6 = 9
    assert advantages([0, 0, 0], [0, 0, 0], [6.0, 8.0, 12.0], lam=1.0) == [0.25, 0.5, 1.0]


def test_gae_of_environments_side_by_side_is_that_of_each_alone():
    generator = torch.Generator().manual_seed(3)
    rewards, values, following = torch.randn(3, 7, 4, generator=generator)
    ends = torch.rand(2, 7, 4, generator=generator) < 0.25
    together = gae(rewards, values, following, ends[0], ends[1], 0.9, 0.8)
    for lane in range(4):
        parts = (part[:, lane : lane + 1] for part in (rewards, values, following, ends[0], ends[1]))
        assert torch.equal(gae(*parts, 0.9, 0.8), together[:, lane : lane + 1])


def test_targets_of_q():
    online, target = torch.tensor([[1.0, 3.0], [5.0, 2.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    assert double_q(online, target).tolist() == [20.0, 30.0]  # not the target's own maxima, 20 and 40
    discounts = torch.tensor([0.25, 0.0])  # two steps; terminated
    assert one_step_targets(torch.tensor([1.0, 2.0]), discounts, torch.tensor([20.0, 30.0])).tolist() == [6.0, 2.0]


def test_duel():
    assert duel(torch.tensor([[10.0, 1.0, 2.0, 6.0]])).tolist() == [[8.0, 9.0, 13.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [(1.5, 2.0, 2.4), (0.5, 2.0, 1.0), (1.5, -2.0, -3.0), (0.5, -2.0, -1.6)],
    ids=["above is cut", "below is not", "bad and above is not", "bad and below is cut"],
)
def test_clipped_loss(ratio, advantage, gain):
    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = clipped_loss(log_probs, torch.zeros(1), torch.tensor([advantage]), 0.2)
    assert loss.item() == pytest.approx(-gain)
    loss.backward()
    is_cut = gain in (2.4, -1.6)
    assert (log_probs.grad.item() == 0) == is_cut


def test_explained_variance():
    wanted = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(wanted, wanted) == 1.0
    assert explained_variance(torch.zeros(3), wanted) == 0.0


def test_choice_agrees_with_torch_distributions():
    out = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.5, 0.1]])
    reference = torch.distributions.Categorical(logits=out)
    actions = torch.tensor([2, 0])
    choice = Choice()
    torch.testing.assert_close(choice.log_probability(out, actions), reference.log_prob(actions))
    torch.testing.assert_close(choice.entropy(out), reference.entropy())
    drawn, log_probs = choice.draw(out.repeat(4000, 1), torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn[::2], minlength=3) / 4000
    torch.testing.assert_close(shares, reference.probs[0], atol=0.025, rtol=0)
    torch.testing.assert_close(log_probs[:2], reference.log_prob(drawn[:2]))


def test_gaussian_agrees_with_torch_distributions():
    out = torch.tensor([[0.3, -1.0], [0.0, 0.5]])
    gaussian = Gaussian(2, log_std=-0.7)
    reference = torch.distributions.Normal(out, gaussian.log_std.detach().exp())
    actions = torch.tensor([[0.1, 0.2], [-0.4, 1.0]])
    torch.testing.assert_close(gaussian.log_probability(out, actions), reference.log_prob(actions).sum(-1))
    torch.testing.assert_close(gaussian.entropy(out), reference.entropy().sum(-1))
    drawn, log_probs = gaussian.draw(out[:1].expand(20_000, -1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), out[0], atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), reference.stddev[0], atol=0.02, rtol=0)
    torch.testing.assert_close(log_probs[:1], gaussian.log_probability(out[:1], drawn[:1]))
