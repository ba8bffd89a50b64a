"""Words: the prompts and the library of everyday behaviours. A leaf that imports nothing of the project."""
