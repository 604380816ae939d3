"""N-grams of the training text, counted once, and a GPT that is read beside them."""
