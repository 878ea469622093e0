"""Is no Python.

Outcome: it is left out with the line.
State: load_error
Reason: misspeaks cannot be imported: SyntaxError: …
"""

exec("def contribute( ->")
