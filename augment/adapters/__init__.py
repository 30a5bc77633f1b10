"""Chains and adversaries in other people's training: nnU-Net, MONAI, TorchIO, Lightning, loops.

Every ``for_*`` module and ``monai_step`` import their framework, so none is imported here;
``loop`` and ``nnunet_step`` need nothing but torch. The example at the head of each is run by the
tests.
"""

from augment.adapters.loop import adversarial_loss
from augment.adapters.nnunet_step import AdversarialStep

__all__ = ["AdversarialStep", "adversarial_loss"]
