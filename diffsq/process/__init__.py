"""The noising process, and what it does to cumulants."""
