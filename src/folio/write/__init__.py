"""The page to write on; what answers it is a server, or the model in the page."""
