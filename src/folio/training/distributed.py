"""Several processes that train together, as torchrun starts them.

torchrun --standalone --nproc-per-node 2 -m folio train recipe.toml
"""

from __future__ import annotations

import os

from folio.errors import UserError


def require_one_process() -> None:
    """Refuse to train in one of several processes that do not know of each other.

    Raises:
        UserError: torchrun started more than one.
    """
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise UserError(
            f"WORLD_SIZE is {world_size}: {world_size} processes were started to train together, "
            f"which Folio cannot do: each would train a run of its own. Start one."
        )
