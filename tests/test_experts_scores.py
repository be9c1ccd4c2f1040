"""Scores of experts: the numeric vectors of both papers' arithmetic, choosing, mixing, confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memorist.errors import ExpertsError
from memorist.fit.experts.roles import advise, arrange, united
from memorist.fit.experts.scores import (
    Array,
    adaptive_threshold,
    by_share,
    confidence,
    leaders,
    output_aware,
    routed_sums,
    turned,
)
from memorist.fit.experts.select import Routing, check_keep, choose, confidence_of, overlap, ranked, renumbered
from memorist.fit.experts.statistics import Statistics, load_statistics, mixed

LOGITS = np.array([[2, 1, 0, -1], [-1, -0.5, -2, -3], [0, 3, 1, 2]], dtype=np.float64)


def premoe(count: int, threshold: float = -1.0, transform: str = "logit") -> Array:
    ids, values = leaders(LOGITS, count)
    return routed_sums(ids, values, 4, threshold=threshold, transform=transform) / len(LOGITS)


class TestPreMoe:
    def test_tcess_of_the_best_expert_alone(self) -> None:
        assert premoe(1) == pytest.approx([2 / 3, 2.5 / 3, 0, 0])
        assert ranked(premoe(1)).tolist()[:2] == [1, 0]

    def test_tcess_of_two_leaders(self) -> None:
        assert premoe(2) == pytest.approx([1 / 3, 3.5 / 3, 0, 2 / 3])
        assert ranked(premoe(2)).tolist() == [1, 3, 0, 2]

    def test_confidence_is_local_to_the_leaders_and_its_mean_is_the_threshold(self) -> None:
        _, values = leaders(LOGITS, 2)
        assert confidence(values)[:, 0] == pytest.approx([0.731059, 0.622459, 0.731059], abs=1e-6)
        assert adaptive_threshold(values) == pytest.approx(0.694859, abs=1e-6)

    def test_peu_leaves_out_what_the_router_is_not_sure_of(self) -> None:
        _, values = leaders(LOGITS, 2)
        assert premoe(2, adaptive_threshold(values), "max") == pytest.approx([2 / 3, 1, 0, 0])

    def test_peus_transform_changes_the_order(self) -> None:
        assert premoe(2, 0, "max") == pytest.approx([0.756314, 1.459180, 0, 2 / 3], abs=1e-6)
        assert ranked(premoe(2, 0, "max")).tolist() == [1, 0, 3, 2]

    def test_equally_sure_leaders_all_stay(self) -> None:
        values = np.tile([0.1, 0.0], (7, 1))
        ids = np.tile([0, 1], (7, 1))
        sums = routed_sums(ids, values, 2, threshold=adaptive_threshold(values), transform="max")
        assert sums[0] > 0

    def test_a_tie_goes_to_the_lower_expert(self) -> None:
        assert leaders(np.zeros((1, 300)), 3)[0].tolist() == [[0, 1, 2]]
        assert choose(np.zeros((1, 300)), 2, Routing(300, 2)).tolist() == [[0, 1]]

    def test_no_logit_overflows(self) -> None:
        sums = routed_sums(np.array([[0, 1]]), np.array([[1e4, -1e4]]), 2, transform="max")
        assert sums.tolist() == [1e4, 0]

    def test_an_unknown_transform_names_the_nearest(self) -> None:
        with pytest.raises(ExpertsError, match="did you mean 'sigmoid'"):
            premoe(2, transform="sigmoyd")


IDS = np.array([[0, 1], [1, 2]])
GATES = np.array([[0.6, 0.4], [0.5, 0.5]])
NORMS = np.array([[5.0, 1.0], [2.0, 3.0]])
BEFORE = np.array([[3.0, 4.0], [1.0, 0.0]])
ADDED = np.array([[2.4, -1.4], [1.0, 1.5]])


class TestEasyEp:
    def test_a_token_counts_as_much_as_it_is_turned(self) -> None:
        assert turned(BEFORE, ADDED) == pytest.approx([0.112347, 0.2], abs=1e-6)

    def test_a_parallel_output_turns_nothing_and_an_opposite_one_most(self) -> None:
        here = np.array([[3.0, 4.0]])
        assert turned(here, 2 * here)[0] == pytest.approx(0, abs=1e-12)
        assert turned(here, -2 * here)[0] == pytest.approx(2)

    def test_without_a_direction_it_counts_as_a_right_angle(self) -> None:
        here = np.array([[3.0, 4.0]])
        assert turned(here, -here)[0] == 1 == turned(0 * here, here)[0]

    def test_tiny_turns_are_not_rounded_away(self) -> None:
        here = np.array([[1.0, 0.0]])
        assert turned(here, np.array([[0.0, 1e-9]]))[0] == pytest.approx(0.5e-18, rel=1e-6)

    def test_scores_ablations_and_baselines(self) -> None:
        found = output_aware(IDS, GATES, NORMS, turned(BEFORE, ADDED), 3)
        assert found["easyep"] == pytest.approx([0.337040, 0.244939, 0.3], abs=1e-6)
        assert found["easyep-no-token"] == pytest.approx([3.0, 1.4, 1.5])
        assert found["easyep-no-norm"] == pytest.approx([0.067408, 0.144939, 0.1], abs=1e-6)
        assert found["gate"] == pytest.approx([0.6, 0.9, 0.5])
        assert found["frequency"].tolist() == [1, 2, 1]
        assert ranked(found["easyep"]).tolist() == [0, 2, 1]

    def test_scorers_choose_differently(self) -> None:
        found = output_aware(IDS, GATES, NORMS, turned(BEFORE, ADDED), 3)
        kept = {name: choose(scores[None], 2, Routing(3, 2)).tolist()[0] for name, scores in found.items()}
        assert kept["easyep"] == [0, 2]
        assert kept["gate"] == [0, 1]

    def test_survivors_are_renumbered_in_order(self) -> None:
        assert renumbered(np.array([0, 2, 3]), 5).tolist() == [0, -1, 1, 2, -1]


def statistics(task: str, scores: list[float], samples: int = 1, fingerprint: str = "f", tokens: int = 1) -> Statistics:
    """One layer; every sample has the same sums."""
    sums = np.tile(np.array(scores, dtype=np.float64), (samples, 1, 1))
    return Statistics(
        task, fingerprint, "qwen3_moe", len(scores), 1, (0,), {"gate": sums, "peu": sums},
        np.full(samples, tokens, dtype=np.int64), np.zeros(1),
    )  # fmt: skip


class TestMixing:
    A, B = statistics("a", [6, 3, 1, 0]), statistics("b", [10, 0, 30, 60])

    def test_tasks_are_mixed_by_their_shares_not_their_sums(self) -> None:
        found = mixed([self.A, self.B], "gate")
        assert by_share(self.B.scores("gate"))[0] == pytest.approx([0.1, 0, 0.3, 0.6])
        assert found[0] == pytest.approx([0.35, 0.15, 0.20, 0.30])
        assert choose(found, 2, Routing(4, 1)).tolist() == [[0, 3]]
        assert choose(self.A.scores("gate") + self.B.scores("gate"), 2, Routing(4, 1)).tolist() == [[2, 3]]

    def test_weights_decide_how_much_a_task_counts(self) -> None:
        assert mixed([self.A, self.B], "gate", [1, 0])[0] == pytest.approx([0.6, 0.3, 0.1, 0])

    def test_peu_is_mixed_over_tokens(self) -> None:
        longer = statistics("c", [9, 0, 0, 0], tokens=3)
        assert mixed([self.A, longer], "peu")[0] == pytest.approx([15 / 4, 3 / 4, 1 / 4, 0])

    @pytest.mark.parametrize("weights", [[1.0], [-1.0, 1.0], [0.0, 0.0], [float("nan"), 1.0]])
    def test_weights_that_are_none_are_refused(self, weights: list[float]) -> None:
        with pytest.raises(ExpertsError, match="weights"):
            mixed([self.A, self.B], "gate", weights)

    def test_tasks_of_different_models_are_refused(self) -> None:
        with pytest.raises(ExpertsError, match="different models"):
            mixed([self.A, statistics("b", [1, 2, 3, 4], fingerprint="g")], "gate")

    def test_random_scores_repeat_by_seed(self) -> None:
        first, again, other = (self.A.scores("random", seed) for seed in (1, 1, 2))
        assert (first == again).all() and (first != other).any()

    def test_an_unknown_scorer_names_the_nearest(self) -> None:
        with pytest.raises(ExpertsError, match="did you mean 'gate'"):
            self.A.scores("gates")


GROUPED = Routing(experts=8, active=2, groups=4, used_groups=2, least=2)


class TestChoosing:
    def test_balanced_takes_as_many_of_each_group(self) -> None:
        scores = np.array([[9, 8, 7, 6, 1, 2, 4, 3]], dtype=np.float64)
        routing = Routing(8, 2, groups=2, used_groups=1, least=2)
        assert choose(scores, 4, routing).tolist() == [[0, 1, 2, 3]]
        assert choose(scores, 4, routing, "balanced").tolist() == [[0, 1, 6, 7]]

    @pytest.mark.parametrize(
        ("keep", "mode", "message"),
        [
            (0, "global", "expected 1 to 8"),
            (9, "global", "expected 1 to 8"),
            (1, "global", "each token goes through 2"),
            (6, "balanced", "not divisible into 4 groups; give a multiple of 4"),
            (4, "balanced", "leaves 1 experts in each of 4 groups"),
            (8, "balansed", "did you mean 'balanced'"),
        ],
    )
    def test_numbers_that_cannot_work_are_refused(self, keep: int, mode: str, message: str) -> None:
        with pytest.raises(ExpertsError, match=message):
            check_keep(GROUPED, keep, mode)

    def test_groups_that_hold_fewer_than_a_token_needs_are_refused(self) -> None:
        with pytest.raises(ExpertsError, match="fewer than the 3 it goes through"):
            check_keep(Routing(8, 3, groups=4, used_groups=1, least=2), 8, "balanced")

    def test_groups_that_cut_experts_unevenly_are_refused(self) -> None:
        with pytest.raises(ExpertsError, match="10 experts in 4 groups"):
            check_keep(Routing(10, 2, groups=4, used_groups=2, least=2), 8, "balanced")

    def test_scores_that_are_no_numbers_are_refused(self) -> None:
        with pytest.raises(ExpertsError, match="finite"):
            choose(np.array([[1.0, float("nan")]]), 1, Routing(2, 1))

    def test_overlap_is_the_shared_part(self) -> None:
        assert overlap(np.array([[0, 1], [2, 3]]), np.array([[1, 2], [2, 3]])).tolist() == [0.5, 1.0]

    def test_confidence_tells_sure_from_unsure(self) -> None:
        samples = np.array([[[5, 1, 0]], [[5, 0, 1]]], dtype=np.float64)
        found = confidence_of(samples, np.ones(2, dtype=np.int64), 2, Routing(3, 1))
        assert found[0, 0] == 1
        assert 0.15 < found[0, 2] < 0.35  # Only where both draws are the second sample; a tie goes to expert 1.
        assert found.sum() == pytest.approx(2)


class TestRoles:
    A = statistics("manager", [9, 8, 1, 2, 3, 0])
    B = statistics("answerer", [9, 0, 8, 3, 2, 1])
    ROUTING = Routing(6, 1)

    def test_specialists_change_what_they_do_not_share(self) -> None:
        found = arrange([self.A, self.B], 2, "gate", self.ROUTING, "specialist")
        assert {role: keep.tolist() for role, keep in found.choices.items()} == {
            "manager": [[0, 1]],
            "answerer": [[0, 2]],
        }
        assert (found.resident.tolist(), found.moved) == ([[0, 1]], 1)

    def test_a_union_holds_all_and_a_generalist_one_choice_for_all(self) -> None:
        union = arrange([self.A, self.B], 2, "gate", self.ROUTING, "union")
        assert (union.resident.tolist(), union.moved) == ([[0, 1, 2]], 0)
        assert union.choices["answerer"].tolist() == [[0, 2]]
        general = arrange([self.A, self.B], 2, "gate", self.ROUTING, "generalist")
        assert general.choices["manager"].tolist() == general.choices["answerer"].tolist() == general.resident.tolist()

    def test_layers_of_a_union_are_filled_up_by_the_best_of_the_rest(self) -> None:
        choices = [np.array([[0, 1], [0, 1]]), np.array([[2, 3], [0, 1]])]
        found = united(choices, np.array([[0, 1, 2, 3, 4], [4, 0, 3, 1, 2]]))
        assert found.tolist() == [[0, 1, 2, 3], [0, 1, 3, 4]]

    def test_an_unknown_mode_names_the_nearest(self) -> None:
        with pytest.raises(ExpertsError, match="did you mean 'union'"):
            arrange([self.A], 2, "gate", self.ROUTING, "unoin")

    @pytest.mark.parametrize(
        ("passed", "budget", "moving", "mode"),
        [
            (("specialist", "union", "generalist"), None, 9.0, "union"),
            (("specialist", "union", "generalist"), 3.0, 9.0, "union"),
            (("specialist", "union", "generalist"), 2.9, 0.1, "specialist"),
            (("specialist", "union", "generalist"), 2.9, 0.11, "generalist"),
            (("specialist", "union"), 2.9, 0.9, "specialist"),
            (("specialist",), None, 0.9, "specialist"),
            (("generalist",), None, 0.0, "generalist"),
            ((), None, 0.0, "none"),
            (("union",), 2.9, 0.0, "none"),
            (("specialist", "union", "generalist"), 1.9, 0.0, "none"),
        ],
    )
    def test_the_union_if_it_fits_then_own_experts_if_changes_are_cheap(
        self, passed: tuple[str, ...], budget: float | None, moving: float, mode: str
    ) -> None:
        sizes = {"specialist": 2.0, "union": 3.0, "generalist": 2.0}
        found, why = advise(sizes, passed, budget, moving)
        assert found == mode
        assert ("keep fewer" in why) == (budget == 1.9)


class TestFiles:
    def test_a_calibration_is_kept_as_it_was(self, tmp_path: Path) -> None:
        made = statistics("a", [6, 3, 1, 0], samples=3)
        made.save(tmp_path / "deep/a.safetensors")
        found = load_statistics(tmp_path / "deep/a.safetensors")
        assert (found.task, found.moe_layers, found.experts) == ("a", (0,), 4)
        assert (found.scores("gate") == made.scores("gate")).all()
        assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.safetensors"]

    def test_no_calibration_says_how_to_make_it(self, tmp_path: Path) -> None:
        with pytest.raises(ExpertsError, match="memorist experts calibrate MODEL --task math"):
            load_statistics(tmp_path / "math.safetensors")

    @pytest.mark.parametrize("size", [0, 20, 300])
    def test_a_torn_calibration_is_refused(self, size: int, tmp_path: Path) -> None:
        file = tmp_path / "a.safetensors"
        statistics("a", [6, 3, 1, 0]).save(file)
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(ExpertsError, match="calibrate again"):
            load_statistics(file)

    def test_a_safetensors_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(ExpertsError, match="no calibration that can be read"):
            load_statistics(tmp_path / "a.safetensors")
