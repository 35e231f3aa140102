"""The chapter's worked examples, as functions to call, change and draw.

Each is seeded, runs on the backend it is given, and brings its results to the host, as numbers
and NumPy arrays to print and to plot.
"""

from dlfs_gpu.chapter4.experiments.descent import (
    Descent,
    LinearRegression,
    compare_optimizers,
    learning_rates,
    linear_regression,
)
from dlfs_gpu.chapter4.experiments.differences import (
    DifferenceErrors,
    LostStep,
    SteepestAscent,
    forward_against_central,
    lost_step,
    steepest_ascent,
)
from dlfs_gpu.chapter4.experiments.gradients import GradientErrors, gradient_errors
from dlfs_gpu.chapter4.experiments.learning import (
    AccuracyAgainstLoss,
    LinearCollapse,
    SaturatedSigmoid,
    Xor,
    accuracy_against_loss,
    collapse_linear_layers,
    saturated_sigmoid,
    xor,
)
from dlfs_gpu.chapter4.experiments.overfitting import Course, EarlyStop, Overfitting, overfitting

__all__ = [
    "AccuracyAgainstLoss",
    "Course",
    "Descent",
    "DifferenceErrors",
    "EarlyStop",
    "GradientErrors",
    "LinearCollapse",
    "LinearRegression",
    "LostStep",
    "Overfitting",
    "SaturatedSigmoid",
    "SteepestAscent",
    "Xor",
    "accuracy_against_loss",
    "collapse_linear_layers",
    "compare_optimizers",
    "forward_against_central",
    "gradient_errors",
    "learning_rates",
    "linear_regression",
    "lost_step",
    "overfitting",
    "saturated_sigmoid",
    "steepest_ascent",
    "xor",
]
