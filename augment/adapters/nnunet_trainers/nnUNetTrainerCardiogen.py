"""A trainer of nnU-Net with the adversary; this folder is what ``nnUNet_extTrainer`` may name.

``nnUNet_extTrainer=.../augment/adapters/nnunet_trainers nnUNetv2_train DATASET 2d 0 -tr
nnUNetTrainerCardiogen``; nnU-Net wants the file to have the name of the class.
"""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from augment.adapters.nnunet_step import AdversarialStep


class nnUNetTrainerCardiogen(AdversarialStep, nnUNetTrainer):
    """nnU-Net's own training with agreement on hard versions of its patches."""
