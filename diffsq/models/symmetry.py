"""Lattice symmetries: a frame (translation, reflection, transposition) for a network that breaks some."""

from dataclasses import dataclass

from torch import Tensor

from lattice.arrays import Floats


@dataclass(frozen=True)
class Symmetry:
    """A lattice symmetry: translation by `shift`, reflection of the axes in `flip`, then their exchange.

    >>> import torch
    >>> g = Symmetry(shift=(1, 0), flip=(-1,), exchange=True)
    >>> x = torch.arange(6.0).reshape(1, 2, 3)
    >>> g(x).tolist()
    [[[5.0, 2.0], [4.0, 1.0], [3.0, 0.0]]]
    >>> torch.equal(g.inverse(g(x)), x)
    True
    """

    shift: tuple[int, int] = (0, 0)
    flip: tuple[int, ...] = ()
    exchange: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        x = x.roll(self.shift, (-2, -1)).flip(self.flip)
        return x.transpose(-1, -2) if self.exchange else x

    def inverse(self, x: Tensor) -> Tensor:
        """Undo `__call__`."""
        x = x.transpose(-1, -2) if self.exchange else x
        return x.flip(self.flip).roll((-self.shift[0], -self.shift[1]), (-2, -1))

    @staticmethod
    def draw(uniforms: Tensor | Floats, shape: tuple[int, ...]) -> "Symmetry":
        """From five uniforms in (0, 1); axes are exchanged on square lattices only."""
        u = uniforms.tolist()
        shift = (int(u[0] * shape[0]), int(u[1] * shape[1]))
        flip = tuple(axis for axis, value in ((-2, u[2]), (-1, u[3])) if value < 0.5)
        return Symmetry(shift, flip, shape[0] == shape[1] and u[4] < 0.5)


IDENTITY = Symmetry()


def still(step: int) -> Symmetry:
    """Every step in the frame of the lattice itself."""
    return IDENTITY


def shared(sigma: Tensor) -> Tensor:
    """(1,) where all of sigma (n,) are equal, as in every sampling step: tables are then made once.

    Samplers expand one number (stride 0), which is seen without waiting for a device.
    """
    return sigma[:1] if sigma.stride(0) == 0 or bool((sigma == sigma[0]).all()) else sigma
