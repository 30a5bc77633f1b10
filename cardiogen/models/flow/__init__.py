"""A rectified flow from a Gaussian prior of latents to what they really are; optional.

``network`` is the speed, ``prior`` what hearts are drawn from, ``training`` fits the one to the
other's latents. Completion and ageing keep the Gaussian.
"""

from cardiogen.models.flow.network import LatentFlow, new_flow
from cardiogen.models.flow.prior import FlowPrior
from cardiogen.models.flow.training import FlowExamples, FlowTask, fit_flow, flow_examples

__all__ = [
    "FlowExamples",
    "FlowPrior",
    "FlowTask",
    "LatentFlow",
    "fit_flow",
    "flow_examples",
    "new_flow",
]
