"""Which files make which shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.store import plan
from tests.store.making import quiet


def test_a_file_among_others_makes_few_shards_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 400)
    for n in range(200):
        (tmp_path / f"{n:03}.txt").write_text("a" * 90)
    before = set(plan.plan([str(tmp_path)], quiet))
    (tmp_path / "000a.txt").write_text("b" * 90)
    after = set(plan.plan([str(tmp_path)], quiet))
    assert len(before) < 120 and max(group.n_bytes for group in after) <= 400
    assert 0 < len(after - before) < 5
