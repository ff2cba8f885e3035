"""diffsq: diffusion models as exactly corrected samplers for lattice field theory.

The command is ``diffsq`` (see ``diffsq --help``); the README's first screen has the same job in Python.
Importing this package imports nothing heavy: take what you need from its modules, for example
``from diffsq.config import load_config`` or ``from diffsq.train import train``.
"""

__version__ = "0.1.0"
