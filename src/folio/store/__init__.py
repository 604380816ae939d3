"""A store of tokens: text of any size, encoded once by any number of processes and machines."""
