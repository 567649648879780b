"""Wave-ViT (Yao et al. 2022): self-attention to keys of a wavelet transform."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.base.errors import UserError
from attention_ablation.networks.network import Network, Places

LEAST, MULTIPLE = 32, 16  # of an image's side, px


@dataclass(frozen=True, kw_only=True)
class WaveViT(Network):
    """The small Wave-ViT of arXiv:2207.04978, a transformer; it has no gates.

    Block: x + attention(LN(x)), then x + FFN(LN(x)). In stages 1 and 2 keys and values are of w,
    the filtered Haar transform of a map of C / 4 channels, and the output sees its inverse as well;
    stages 3 and 4 have plain attention. At the end a class token attends once to all places.

    Exact, but for its token labels' head and stochastic depth, which it lacks here, and for the
    Haar filters, which are in the maps' precision. A tier's width shrinks heads and not their
    number. Image: a multiple of 16 px, at least 32.
    """

    family = "wavevit"
    stages = ("stage1", "stage2", "stage3", "stage4")
    own_init = True
    grouped = True

    per_head: int = 32
    heads: tuple[int, ...] = (2, 4, 10, 14)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    ratios: tuple[int, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (4, 2, 0, 0)  # of w's map, a side; 0: plain attention
    stem: int = 32

    @property
    def convolutions(self) -> int:
        # Of a block: FFN's 3, attention's 3 linear layers, and 5 more of the Haar transform.
        waves = zip(self.depths, self.reductions, strict=True)
        return 6 * sum(self.depths) + 5 * sum(depth for depth, reduction in waves if reduction)

    def head(self, width: float) -> int:
        """Return the channels of a head, an even number, as a quarter of two heads is needed."""
        return 2 * int(self.per_head * width / 2)

    def narrowest(self, width: float) -> int:
        return self.head(width)

    def places(self, width: float) -> Places:
        return {}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.wavevit import wavevit

        if image_size < LEAST or image_size % MULTIPLE:
            raise UserError(
                f"{backbone.name}: expected images whose side is a multiple of {MULTIPLE} px and "
                f"at least {LEAST}, as its wavelets need, got {image_size} px; choose another "
                "image size."
            )
        channels = [self.head(backbone.width) * heads for heads in self.heads]
        stem = int(self.stem * backbone.width)
        shape = (channels, self.depths, self.heads, self.ratios, self.reductions)
        return wavevit(stem, *shape, classes=classes)


NETWORKS = {"wave-vit-s": WaveViT()}
