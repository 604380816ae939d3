"""(B, T) token ids -> (B, T, V) logits. Read `gpt.py` from top to bottom first."""
