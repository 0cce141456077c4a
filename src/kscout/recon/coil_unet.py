"""A U-Net for the zero-filled images of single coils."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.recon.base import Reconstructor
from kscout.recon.unet import Unet


class CoilUnet(Reconstructor):
    """Corrects each coil's zero-filled image by one U-Net that all coils share.

    The U-Net of fastMRI (Zbontar et al. 2018, sec. 6.2), with complex images in place of
    magnitudes, so that the acquired points can be put back. Coils do not know of each other: it
    fills k-space by what images look like, not by sensitivities. Every slice is brought to a root
    mean square of 1, over coils and pixels, and back.

    Parameters
    ----------
    n_coils : unused: any number is reconstructed
    seed : of the initial weights
    n_channels, n_levels : of the :class:`~kscout.recon.unet.Unet`
    """

    def __init__(
        self,
        n_coils: int,
        seed: int = 0,
        *,
        n_channels: Annotated[int, Field(ge=1, description="of the first level")] = 16,
        n_levels: Annotated[int, Field(ge=1, le=6, description="how often the size is halved")] = 3,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.unet = Unet(2, 2, n_channels, n_levels, generator)

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        image = kspace_to_image(kspace)
        rms = torch.linalg.vector_norm(image, dim=(1, 2, 3), keepdim=True)
        rms = rms / (image[:1].numel() or 1) ** 0.5
        scale = rms + (rms == 0)
        channels = torch.view_as_real((image / scale).flatten(0, 1)).movedim(-1, 1)
        change = torch.complex(*self.unet(channels).unbind(1))
        return image_to_kspace(image + scale * change.unflatten(0, image.shape[:2]))
