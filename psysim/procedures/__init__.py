"""Tracking rules over many lanes at once, tasks, signal detection theory, psychometric functions.

This room knows nothing about sound: levels go out, answers come in. It needs no torch.
"""

from __future__ import annotations

from psysim.procedures.adjustment import Adjustment, AdjustmentState
from psysim.procedures.asa import Asa, AsaState, asa_asymptotic_sd
from psysim.procedures.base import (
    Procedure,
    ProcedureSettings,
    Status,
    TrackState,
    TrackSummary,
    concatenate,
    register,
    registry,
)
from psysim.procedures.bayes import BayesRule, BayesState
from psysim.procedures.bekesy import Bekesy, BekesyState
from psysim.procedures.constant_stimuli import ConstantStimuli, ConstantStimuliState
from psysim.procedures.convergence import expected_threshold
from psysim.procedures.design import Design, compare_designs, simulate_design
from psysim.procedures.fit_intervals import BootstrapFits, bootstrap_fits, profile_interval
from psysim.procedures.fitting import FitPrior, FitStatus, PsychometricFits, fit_psychometric
from psysim.procedures.interleaved import Interleaved, InterleavedState
from psysim.procedures.keyed import keyed_order, keyed_uniform, rove
from psysim.procedures.level_distribution import LevelDistribution, level_distribution
from psysim.procedures.level_rule import LevelRule, LevelRuleSettings, LevelState
from psysim.procedures.limits import LimitsState, MethodOfLimits
from psysim.procedures.mlp import MLP
from psysim.procedures.pest import Pest, PestState
from psysim.procedures.psi import Psi, PsiMarginal
from psysim.procedures.psychometric import (
    PsychometricFunction,
    inverse_psychometric_function,
    psychometric_function,
)
from psysim.procedures.quest import Quest
from psysim.procedures.quest_plus import QuestPlus, QuestPlusGrid
from psysim.procedures.roc import (
    bias_relative,
    d_a,
    likelihood_ratio_bias,
    roc_area,
    roc_area_gaussian,
    roc_curve,
    roc_gaussian,
    roc_points,
    with_lapses,
    without_lapses,
)
from psysim.procedures.sdt import (
    criterion_yes_no,
    d_prime_mafc,
    d_prime_yes_no,
    log_linear_rates,
    proportion_correct_large_m,
    proportion_correct_mafc,
    proportion_correct_yes_no,
    rates_yes_no,
)
from psysim.procedures.sdt_comparison import (
    criterion_same_different,
    d_prime_abx,
    d_prime_oddity,
    d_prime_same_different,
    d_prime_same_different_rates,
    proportion_correct_abx,
    proportion_correct_oddity,
    proportion_correct_same_different,
    rates_same_different,
)
from psysim.procedures.session import next_track, run_to_end
from psysim.procedures.spearman_karber import isotonic, spearman_karber
from psysim.procedures.staircase import Staircase, StaircaseState
from psysim.procedures.tasks import AFC, NO_TARGET, ChoiceTask, Task, YesNo
from psysim.procedures.tasks_closed_set import (
    Identification,
    category_levels,
    confusion_matrix,
    transmitted_information,
)
from psysim.procedures.tasks_comparison import ABX, ComparisonTask, Matching, Oddity, SameDifferent
from psysim.procedures.track_distribution import TrackDistribution, track_distribution
from psysim.procedures.transformed_weighted import TransformedWeightedUpDown
from psysim.procedures.uml import UML, UMLState
from psysim.procedures.up_down import UpDown, up_down_target
from psysim.procedures.weighted import WeightedUpDown

__all__ = [
    "ABX",
    "AFC",
    "MLP",
    "NO_TARGET",
    "UML",
    "Adjustment",
    "AdjustmentState",
    "Asa",
    "AsaState",
    "BayesRule",
    "BayesState",
    "Bekesy",
    "BekesyState",
    "BootstrapFits",
    "ChoiceTask",
    "ComparisonTask",
    "ConstantStimuli",
    "ConstantStimuliState",
    "Design",
    "FitPrior",
    "FitStatus",
    "Identification",
    "Interleaved",
    "InterleavedState",
    "LevelDistribution",
    "LevelRule",
    "LevelRuleSettings",
    "LevelState",
    "LimitsState",
    "Matching",
    "MethodOfLimits",
    "Oddity",
    "Pest",
    "PestState",
    "Procedure",
    "ProcedureSettings",
    "Psi",
    "PsiMarginal",
    "PsychometricFits",
    "PsychometricFunction",
    "Quest",
    "QuestPlus",
    "QuestPlusGrid",
    "SameDifferent",
    "Staircase",
    "StaircaseState",
    "Status",
    "Task",
    "TrackDistribution",
    "TrackState",
    "TrackSummary",
    "TransformedWeightedUpDown",
    "UMLState",
    "UpDown",
    "WeightedUpDown",
    "YesNo",
    "asa_asymptotic_sd",
    "bias_relative",
    "bootstrap_fits",
    "category_levels",
    "compare_designs",
    "concatenate",
    "confusion_matrix",
    "criterion_same_different",
    "criterion_yes_no",
    "d_a",
    "d_prime_abx",
    "d_prime_mafc",
    "d_prime_oddity",
    "d_prime_same_different",
    "d_prime_same_different_rates",
    "d_prime_yes_no",
    "expected_threshold",
    "fit_psychometric",
    "inverse_psychometric_function",
    "isotonic",
    "keyed_order",
    "keyed_uniform",
    "level_distribution",
    "likelihood_ratio_bias",
    "log_linear_rates",
    "next_track",
    "profile_interval",
    "proportion_correct_abx",
    "proportion_correct_large_m",
    "proportion_correct_mafc",
    "proportion_correct_oddity",
    "proportion_correct_same_different",
    "proportion_correct_yes_no",
    "psychometric_function",
    "rates_same_different",
    "rates_yes_no",
    "register",
    "registry",
    "roc_area",
    "roc_area_gaussian",
    "roc_curve",
    "roc_gaussian",
    "roc_points",
    "rove",
    "run_to_end",
    "simulate_design",
    "spearman_karber",
    "track_distribution",
    "transmitted_information",
    "up_down_target",
    "with_lapses",
    "without_lapses",
]
