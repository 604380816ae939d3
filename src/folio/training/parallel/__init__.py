"""One training step by several processes, made fast.

`PlainStep` (`training/step.py`) says what a step computes; this package computes it on all cores of
a processor, and `tests/training/` holds the two together. Rank 0 is the process of the command; the
others are forked from it when training begins, and end with it. With two of them a step is:

    rank 0                      rank 1                      in shared memory, written by
    ------                      ------                      ----------------------------
    batch -> micro-batches      |
    message: micro-batch 0      message: micro-batch 1
    seed dropout, replay        seed dropout, replay        gradients[0], gradients[1]: their rank
    ============================ barrier ============================
    add up shard 0              add up shard 1              gradients: each its shard
    answer: loss, |g|^2         answer: loss, |g|^2
    norm, finite? clip, lr      |
    message: lr, scale          message: lr, scale
    update shard 0              update shard 1              master, compute, what rules remember:
    ============================ barrier ============================       each its shard, or,
    int8: quantize layers 0 2   int8: quantize layers 1 3   int8 weights     Muon, its matrices
    ============================ barrier ============================
    shard finite?               shard finite?
    answer: yes or no           answer: yes or no
    (no: both copy the master weights back from `gradients`, where the update left them)

A barrier is where nobody goes on before all have come; without int8 there are two in a step. More
micro-batches than workers come in rounds of as many, each with its first barrier.

Who owns what:

    buffer        numbers        written by
    master        N float32      update: each worker its shard        FlatParameters
    compute       N device's     update, beside the master weights    FlatParameters
    gradients     N float32      the sum: each worker its shard       FlatParameters
    gradients[r]  N device's     backward of rank r                   Replica
    arena         bytes          rank r alone, not shared             CapturedStep
    rules' state  1 to 2 N       update: each worker its shard        ParallelOptimizer

Files, in the order of a step:

    step.py             ParallelStep, which the loop sees
    data_parallel.py    replicas, micro-batches, backward, the sum of gradients
    capture.py          the operations of backward (and of Muon), recorded once and replayed
    memory_plan.py      where the tensors of a capture lie
    flat_parameters.py  master weights, gradients and compute weights, each in one buffer
    updates.py          AdamW and SGD on shards; ParallelOptimizer
    muon.py             Muon for stacks of matrices

`folio/workers.py` has the processes, `folio/fast/` the layers and all kernels.
"""
