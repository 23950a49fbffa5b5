"""One folder a back end; `factory.py` is the one place that chooses among them."""
