"""Files of the user -> documents, split into training and validation, every character counted."""
