"""From a split to batches: their order, images on the devices or streamed to them, and broken images on the way."""
