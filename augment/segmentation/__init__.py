"""Training of a segmentation network, with any augmentation in a slot of its own.

The parts stand alone: ``prepare`` brings images to a network's lattice and back, ``arms`` is the
slot, ``task`` and ``train`` run on ``cardiogen.engine.fit``, ``predict`` segments whole images
with any network that gives logits.
"""

from augment.segmentation.arms import Arm, Augmented, Batch, Consistent, Disagreed, Plain
from augment.segmentation.config import (
    AugmentationConfig,
    DataConfig,
    ImageConfig,
    NetworkConfig,
    PredictionConfig,
    SegmentationConfig,
)
from augment.segmentation.evaluate import (
    Segmented,
    overlap_table,
    segment_sequence,
    summarize,
    write_predictions,
)
from augment.segmentation.examples import SliceExamples
from augment.segmentation.losses import segmentation_losses
from augment.segmentation.paint import PaintOptions, paint_sequence
from augment.segmentation.predict import predict_frame, predict_volume
from augment.segmentation.prepare import Frame, prepare_frame, prepare_sequence
from augment.segmentation.split import Split, split_subjects
from augment.segmentation.store import StoredNetwork, load_network, save_network
from augment.segmentation.synthetic import population_sequence
from augment.segmentation.task import SegmentationTask
from augment.segmentation.taught import Taught
from augment.segmentation.train import TrainedSegmentation, train_segmentation
from augment.segmentation.unet import UNet
from augment.segmentation.watch import (
    Lost,
    adversary_summary,
    adversary_table,
    collapse_table,
    lost_structures,
)

__all__ = [
    "Arm",
    "AugmentationConfig",
    "Augmented",
    "Batch",
    "Consistent",
    "DataConfig",
    "Disagreed",
    "Frame",
    "ImageConfig",
    "Lost",
    "NetworkConfig",
    "PaintOptions",
    "Plain",
    "PredictionConfig",
    "SegmentationConfig",
    "SegmentationTask",
    "Segmented",
    "SliceExamples",
    "Split",
    "StoredNetwork",
    "Taught",
    "TrainedSegmentation",
    "UNet",
    "adversary_summary",
    "adversary_table",
    "collapse_table",
    "load_network",
    "lost_structures",
    "overlap_table",
    "paint_sequence",
    "population_sequence",
    "predict_frame",
    "predict_volume",
    "prepare_frame",
    "prepare_sequence",
    "save_network",
    "segment_sequence",
    "segmentation_losses",
    "split_subjects",
    "summarize",
    "train_segmentation",
    "write_predictions",
]
