"""One training step on a GPU, made fast.

`PlainStep` (`training/step.py`) says what a step computes; here it starts fewer kernels and waits
less, and `tests/training/accelerated/` holds the two together. A step is:

    processor                              GPU
    ---------                              ---
    batch -> pinned memory, one copy
    start graph of a micro-batch      ->   forward, chunked loss, backward, gradients += ...
    (more micro-batches)              ->   ...
    wait: loss and norm               <-   norm of all gradients
    finite? learning rate
    start clipping, graph of rules    ->   AdamW fused; Muon, all matrices of a shape at once
    wait: are all weights finite?     <-
    start rounding                    ->   compute weights from master weights

Files, in the order of a step:

    step.py     AcceleratedStep, which the loop sees: gradients and loss in one buffer each
    graph.py    a function of tensors, captured as a CUDA graph; compiled by torch.compile
    head.py     the head with a padded vocabulary, and its loss in chunks of rows
    rules.py    AdamW and Muon with few large operations

None of it has run on a GPU: the tests run it on the processor, on torch's meta device, where the
kernels of a real size are counted, and with a double of CUDA's graphs (tests/graphs.py).
"""
