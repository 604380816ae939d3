"""Token ids on the disk, and the stream of batches that is read from them."""
