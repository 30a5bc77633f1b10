"""augment: adversarial photometric-geometric chains for segmentation training."""
