"""Token ids on disk, and the stream of batches that is read from them."""
