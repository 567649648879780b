"""From a data set to batches: order, decoding, augmentation."""
