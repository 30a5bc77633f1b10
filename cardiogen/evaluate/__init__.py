"""Evaluation of generative models, written once against ``models.protocol``.

Tasks: generation, conditioning, plausibility, validity, completion, reconstruction, memorization.
"""

from cardiogen.evaluate.lines import Line, Result, verdicts
from cardiogen.evaluate.report import report_facts, write_report
from cardiogen.evaluate.run import PATIENT_TASKS, POPULATION, TASKS, Evaluation, evaluate_models
from cardiogen.evaluate.settings import LEAST_HEARTS, SIZES, Size

__all__ = [
    "LEAST_HEARTS",
    "PATIENT_TASKS",
    "POPULATION",
    "SIZES",
    "TASKS",
    "Evaluation",
    "Line",
    "Result",
    "Size",
    "evaluate_models",
    "report_facts",
    "verdicts",
    "write_report",
]
