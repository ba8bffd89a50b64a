"""Numbers: reads pairs through a model and its SAE, forecasts, traces and verifies.

No LLM client, no SQLite, no graph.
"""
