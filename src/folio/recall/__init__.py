"""Did it learn, or copy? What a model knows by heart, and what it writes off."""
