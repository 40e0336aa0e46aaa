"""Targets and advantages. Where an episode ends matters:

terminated   the environment is over: nothing follows, so the value of what follows is 0
truncated    it was only cut, by a limit on steps: the value of the last observation stands for what would follow

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
    A_t     = delta_t + gamma lambda (1 - terminated_t) (1 - truncated_t) A_{t+1}

s'_t is what followed action t in its own episode, never the first observation of the next one.
"""

from __future__ import annotations

from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalized advantage estimates. With `lam=1` they are n-step returns minus values, with 0 one-step errors.

    Args:
        rewards: r `[L, N]` of L steps in N environments.
        values: V(s) `[L, N]`.
        next_values: V(s') `[L, N]`; where a step terminated its value is not used.
        terminated, truncated: bool `[L, N]`.
        gamma: discount.
        lam: lambda.

    Returns:
        A `[L, N]`; the targets of the values are A + V.

    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation (2016), eq. 16;
    the two ends of episodes: Pardo et al., Time Limits in Reinforcement Learning (ICML 2018).
    """
    follows = (~terminated).to(rewards.dtype)
    goes_on = (~(terminated | truncated)).to(rewards.dtype)
    # A value that is not used may be anything, also NaN, so it is replaced and not multiplied by 0.
    deltas = rewards + gamma * next_values.where(~terminated, rewards.new_zeros(())) * follows - values
    advantages = rewards.new_zeros(rewards.shape)
    later = rewards.new_zeros(rewards.shape[1:])
    for t in reversed(range(len(rewards))):
        later = deltas[t] + gamma * lam * goes_on[t] * later
        advantages[t] = later
    return advantages


def one_step_targets(returns: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """R + D V(s'): targets of values from (n-step) returns.

    Args:
        returns: R, discounted sum of the rewards up to s' `[B]`.
        discounts: D, gamma^n; 0 where the episode terminated before s' `[B]`.
        next_values: V(s') `[B]`.
    """
    return returns + discounts * next_values


def double_q(online_next: Tensor, target_next: Tensor) -> Tensor:
    """The target net's value of the action that the online net prefers.

    Args:
        online_next, target_next: Q(s', ·) of either net `[B, A]`.

    Source: van Hasselt et al., Deep Reinforcement Learning with Double Q-learning (AAAI 2016), eq. 4.
    """
    return target_next.gather(1, online_next.argmax(1, keepdim=True)).squeeze(1)


def duel(outputs: Tensor) -> Tensor:
    """Q = V + A - mean A.

    Args:
        outputs: V and the advantages of the actions, `[B, 1 + A]`.

    Source: Wang et al., Dueling Network Architectures (ICML 2016), eq. 9.
    """
    value, advantages = outputs[:, :1], outputs[:, 1:]
    return value + advantages - advantages.mean(1, keepdim=True)


def explained_variance(predicted: Tensor, wanted: Tensor) -> float:
    """1 - Var(wanted - predicted) / Var(wanted): 1 is perfect, 0 is no better than a constant."""
    variance = float(wanted.var(unbiased=False))
    return 0.0 if variance == 0 else 1 - float((wanted - predicted).var(unbiased=False)) / variance
