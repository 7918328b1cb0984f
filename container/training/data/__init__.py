"""From files in a channel to batches of pixels: decoding, cache, sampling, augmentation."""
