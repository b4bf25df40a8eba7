from dataclasses import replace

import numpy as np
import pytest

from deepmem_integrations.training.candidates import TRANSFORMS
from deepmem_integrations.training.cross_validation import HeldOut
from deepmem_integrations.training.guard import choose, label_agreement, promised
from tests.training.helpers import held_out


def test_labels_that_agree_with_the_vectors_are_told_from_those_that_do_not():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(40, 8)).astype(np.float32)
    near = (targets + rng.normal(size=targets.shape)).astype(np.float32)
    assert label_agreement(near, targets) > 5
    chance = [label_agreement(near[rng.permutation(40)], targets) for _ in range(200)]
    assert abs(np.mean(chance)) < 0.5
    assert np.mean(np.array(chance) > 3) < 0.02
    assert label_agreement(near[:1], targets[:1]) == 0
    assert label_agreement(near, np.repeat(targets[:1], 40, axis=0)) == pytest.approx(0, abs=1e-3), "all ask for the same"


def test_the_guard_prefers_what_holds_up_on_unseen_answers():
    # Candidate 10 shines where answers were seen and ruins the rest; 9 is good at both.
    views = {"seen": held_out(gains={10: 0.3, 9: 0.1}), "unseen": held_out(gains={10: -0.1, 9: 0.05})}
    assert choose(views, TRANSFORMS, agreement=9.0, max_unseen_loss=1.0, seed=0).candidate == TRANSFORMS[9]
    # A candidate that is best on seen answers and gives up 2 points on unseen ones is a matter of the tolerance.
    views = {"seen": held_out(gains={10: 0.3, 9: 0.1}), "unseen": held_out(gains={10: 0.03, 9: 0.05})}
    assert choose(views, TRANSFORMS, agreement=9.0, max_unseen_loss=1.0, seed=0).candidate == TRANSFORMS[9]
    assert choose(views, TRANSFORMS, agreement=9.0, max_unseen_loss=5.0, seed=0).candidate == TRANSFORMS[10]


def test_the_runner_up_would_be_chosen_without_the_choice():
    views = {"seen": held_out(gains={10: 0.3, 9: 0.2, 8: 0.1}), "unseen": held_out(gains={10: 0.05, 9: -0.1, 8: 0.05})}
    choice = choose(views, TRANSFORMS, agreement=9.0, max_unseen_loss=1.0)
    assert (choice.candidate, choice.runner_up) == (TRANSFORMS[10], TRANSFORMS[8]), "9 does not hold up on unseen answers"
    harmful = held_out(gains={candidate: -0.3 for candidate in range(1, len(TRANSFORMS))})
    nothing = choose({"seen": harmful, "unseen": harmful}, TRANSFORMS, agreement=9.0)
    assert (nothing.candidate, nothing.runner_up) == (TRANSFORMS[0], None), "nothing else holds up"


def test_labels_that_only_repeat_what_stood_first_are_named_as_the_reason():
    first, zero = np.ones((len(TRANSFORMS), 40), dtype=np.float32), np.zeros((len(TRANSFORMS), 40), dtype=np.float32)
    view = HeldOut(first, first, zero, zero)
    choice = choose({"seen": view, "unseen": view}, TRANSFORMS, agreement=9.0)
    assert choice.candidate == TRANSFORMS[0]
    assert "every answer stands first without a model" in choice.reason
    first[:, 0] = 0.5  # all candidates are equal, and differ by how their sums are rounded
    assert "no candidate did better" in choose({"seen": view, "unseen": view}, TRANSFORMS, agreement=9.0).reason


def test_each_metric_is_guarded_by_itself():
    good, bad = held_out(gains={10: 0.1}), held_out(gains={10: -0.03})
    mixed = HeldOut(bad.ndcg, good.recall, np.zeros_like(bad.ndcg), np.zeros_like(bad.ndcg))
    assert choose({"seen": held_out(gains={10: 0.3}), "unseen": mixed}, TRANSFORMS, agreement=9.0).candidate == TRANSFORMS[0]


def test_a_loss_of_exactly_the_limit_is_within_the_limit():
    scores = np.zeros((len(TRANSFORMS), 100), dtype=np.float32)
    for candidate in range(len(TRANSFORMS)):
        scores[candidate, : 65 if candidate == 10 else 66] = 1  # 65 of 100 queries against 66, in float32
    unseen = HeldOut(scores, scores, 0 * scores, 0 * scores)
    views = {"seen": held_out(gains={10: 0.3}), "unseen": unseen}
    assert choose(views, TRANSFORMS, agreement=9.0, max_unseen_loss=1.0).candidate == TRANSFORMS[10]


def test_a_gain_that_popularity_explains_does_not_count():
    scores = held_out(gains={10: 0.2})
    popularity = scores.ndcg - held_out().ndcg
    views = {"seen": HeldOut(scores.ndcg, scores.recall, popularity, popularity), "unseen": held_out()}
    choice = choose(views, TRANSFORMS, agreement=0.0)
    assert choice.candidate == TRANSFORMS[0]
    assert "no more than chance" in choice.reason
    views["seen"] = replace(scores, ndcg_by_chance=0 * popularity, recall_by_chance=0 * popularity)
    assert choose(views, TRANSFORMS, agreement=0.0).candidate == TRANSFORMS[10], "a gain beyond chance needs no agreement"


def test_the_best_of_many_lucky_candidates_does_not_count():
    rng = np.random.default_rng(0)
    chosen = 0
    for seed in range(20):
        noise = 0.5 + 0.3 * rng.normal(size=(len(TRANSFORMS), 60))
        zero = np.zeros_like(noise)
        view = HeldOut(noise, noise, zero, zero)
        views = {"seen": view, "unseen": held_out()}
        choice = choose(views, TRANSFORMS, agreement=0.0, max_unseen_loss=5.0, seed=seed)
        chosen += choice.candidate != TRANSFORMS[0]
    assert chosen <= 3, "17 lucky candidates at a level of 5%"


def noisy(seed, gains, size=150):
    """Scores of which each query tells little."""
    scores = 0.5 + 0.3 * np.random.default_rng(seed).normal(size=(len(TRANSFORMS), size))
    for candidate, gain in gains.items():
        scores[candidate] = scores[0] + gain + 0.3 * np.random.default_rng([seed, candidate]).normal(size=size)
    return HeldOut(scores, scores, 0 * scores, 0 * scores)


def test_the_usual_candidate_needs_less_proof_than_the_best_of_many():
    usual, believed, chosen = TRANSFORMS[5], 0, 0
    for seed in range(20):
        views = {"seen": noisy(seed, {5: 0.06}), "unseen": held_out()}
        believed += choose(views, TRANSFORMS, agreement=None, max_unseen_loss=5.0, seed=seed).candidate == usual
        chosen += choose(views, TRANSFORMS, agreement=None, max_unseen_loss=5.0, usual=usual, seed=seed).candidate == usual
    assert chosen >= 14
    assert believed <= 7
    lucky = 0
    for seed in range(40):
        views = {"seen": noisy(seed, {}), "unseen": held_out()}
        choice = choose(views, TRANSFORMS, agreement=None, max_unseen_loss=5.0, usual=usual, seed=seed)
        lucky += choice.candidate != TRANSFORMS[0]
    assert lucky <= 8, "two tests at a level of 5%"


def test_the_usual_candidate_gives_way_to_a_better_one_and_to_harm():
    usual = TRANSFORMS[5]
    views = {"seen": noisy(0, {5: 0.1, 9: 0.3}), "unseen": held_out()}
    choice = choose(views, TRANSFORMS, agreement=None, max_unseen_loss=5.0, usual=usual)
    assert (choice.candidate, choice.runner_up) == (TRANSFORMS[9], usual)
    assert "better than the usual choice" in choice.reason
    assert ("seen", "ndcg@10") in choice.optimism, "it was picked as the best of all"
    views = {"seen": noisy(0, {5: 0.1, 9: 0.12}), "unseen": held_out()}
    choice = choose(views, TRANSFORMS, agreement=None, max_unseen_loss=5.0, usual=usual)
    assert (choice.candidate, choice.runner_up) == (usual, TRANSFORMS[9]), "two points more are within its luck"
    assert choice.optimism == {}, "nobody picked it for its luck"
    views = {"seen": noisy(0, {5: 0.1}), "unseen": held_out(gains={5: -0.05})}
    assert choose(views, TRANSFORMS, agreement=None, max_unseen_loss=5.0, usual=usual).candidate != usual


@pytest.mark.parametrize(("limit", "kept"), [(0.0, False), (2.0, False), (20.0, True), (None, True)])
def test_the_usual_candidate_loses_no_more_on_unseen_answers_than_it_may(limit, kept):
    usual, unseen = TRANSFORMS[5], noisy(99, {})
    loss = unseen.ndcg[0] - 0.04 - unseen.ndcg[5]  # of 4 points on average, which noise hides
    unseen.ndcg[5] += loss.mean()
    unseen.recall[5] = unseen.ndcg[5]
    views = {"seen": noisy(0, {5: 0.1}), "unseen": unseen}
    found = choose(views, TRANSFORMS, agreement=None, max_unseen_loss=limit, usual=usual).candidate
    assert (found == usual) == kept


def test_candidates_that_change_few_queries_do_not_hide_the_gain_of_another():
    rng = np.random.default_rng(0)
    scores = np.repeat(0.5 + 0.2 * rng.normal(size=(1, 200)), len(TRANSFORMS), axis=0)
    for index in range(1, len(TRANSFORMS)):
        scores[index, rng.integers(200, size=2)] -= 0.3  # two queries of 200
    scores[9] += 0.1 + 0.2 * rng.normal(size=200)
    zero = np.zeros_like(scores)
    views = {"seen": HeldOut(scores, scores, zero, zero), "unseen": HeldOut(scores, scores, zero, zero)}
    choice = choose(views, TRANSFORMS, agreement=0.0)
    assert choice.candidate == TRANSFORMS[9], choice.reason


def test_ties_in_recall_of_generated_labels_are_broken_by_ndcg():
    better = held_out(gains={10: 0.1})
    zero = np.zeros_like(better.ndcg)
    view = HeldOut(better.ndcg, zero + 0.8, zero, zero)
    choice = choose({"seen": view, "unseen": view}, TRANSFORMS, agreement=9.0, max_unseen_loss=None, generated=True)
    assert choice.candidate == TRANSFORMS[10]


# ---- promises --------------------------------------------------------------------------------------------------------


def test_the_luck_of_the_best_of_many_is_known():
    """Of candidates that are all as good as the identity, the best seems better by its luck, which the promise allows for."""
    rng = np.random.default_rng(0)
    zero = np.zeros((len(TRANSFORMS), 40))
    lucks, optimisms = [], []
    for seed in range(30):
        seen, unseen = (HeldOut(*(0.5 + 0.2 * rng.normal(size=(2, len(TRANSFORMS), 40))), zero, zero) for _ in range(2))
        choice = choose({"seen": seen, "unseen": unseen}, TRANSFORMS, agreement=9.0, max_unseen_loss=None, seed=seed)
        if choice.optimism:
            chosen = TRANSFORMS.index(choice.candidate)
            lucks.append((seen.ndcg[chosen] - seen.ndcg[0]).mean())
            optimisms.append(choice.optimism["seen", "ndcg@10"])
    assert len(lucks) > 20
    assert np.mean(lucks) > 0.02
    assert np.mean(optimisms) == pytest.approx(np.mean(lucks), rel=0.6)
    interval = promised(np.full(40, 0.02) + 0.1 * rng.normal(size=40), 0.05)
    assert interval.low < interval.mean - 0.05 < interval.mean < interval.high


def test_a_promise_allows_for_a_third_more_queries():
    gains = np.random.default_rng(0).normal(0.1, 0.2, size=90)
    plain, taught = promised(gains, 0.0), promised(gains, 0.0, learned=0.08)
    assert (taught.mean, taught.low) == (plain.mean, plain.low)
    assert taught.high == pytest.approx(plain.high + 0.04), "half as many again as two thirds"
    assert promised(gains, 0.0, learned=-0.08) == plain


def test_a_promise_on_few_queries_is_careful():
    few, many = promised(np.array([0.0] * 14 + [1.0]), 0.0), promised(np.array(([0.0] * 14 + [1.0]) * 20), 0.0)
    assert few.mean == many.mean
    assert few.low < 0 < many.low
    assert promised(np.array([0.1] * 10), 0.0).low < 0.1, "ten queries that gain the same do not prove that all do"
    assert promised(np.zeros(10), 0.0).low < 0 < promised(np.zeros(10), 0.0).high, "nor that none changes"
