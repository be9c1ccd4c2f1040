"""Policies that see: models of the Qwen2-VL family behind the same sampling, rows and learning as those that read.

Pictures become the embeddings that stand at their tokens; from there on all is text with positions in three axes. Each
picture is read once for all prompts of a batch and all siblings of a group, so nothing has to be repeated or sliced by
group, which is easy to get silently wrong (section 6.4 of the specification of UAV-VL-R1).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from memorist.decision import Media, Observation, Picture
from memorist.errors import PolicyError
from memorist.models.causal import CausalPolicy
from memorist.models.pictures import image_of
from memorist.models.prompting import observation_ids
from memorist.models.quantised import loaded_as, settled
from memorist.models.writing import Prompt, Stood

FAMILIES = ("qwen2_vl",)
"""Others count positions otherwise, and are refused until that was looked at."""
NEVER = -200.0
"""The logit of what must not be written: a probability of 0 in float32, and small enough a number to be compared."""
KEPT_BYTES = 2**30
"""Of patches that are kept from one round of sampling to the next."""


class _Never:
    """After a head: no probability for some tokens. Copied with its model, and bound to nothing else."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = sorted(tokens)

    def __call__(self, module: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor(self.tokens, device=logits.device), NEVER)


class VisionPolicy(CausalPolicy):
    """A `CausalPolicy` that can be shown pictures (`Observation.pictures`).

    Args:
        model: a `Qwen2VLForConditionalGeneration`.
        tokenizer, name, source: as for `CausalPolicy`.
        processor: makes patches of pictures; needs Pillow alone, not torchvision.
    """

    sees = True

    def __init__(self, model: Any, tokenizer: Any, processor: Any, name: str, *, source: str = "") -> None:
        super().__init__(model, tokenizer, name, source=source)
        self.processor = processor
        config = model.config
        self.image = int(config.image_token_id)
        self.around_image = int(config.vision_start_token_id), int(config.vision_end_token_id)
        never = {self.image, *self.around_image, int(config.video_token_id)}
        head = model.get_output_embeddings()
        # A picture's token in a reply has no picture behind it, and every later pass over the reply would fail.
        if not any(isinstance(hook, _Never) for hook in head._forward_hooks.values()):
            head.register_forward_hook(_Never([token for token in never if token < self._config.vocab_size]))
        self._patches: OrderedDict[str, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()

    @classmethod
    def load(cls, folder: str | Path, name: str | None = None, *, int8: bool = False) -> VisionPolicy:
        """Load from a folder, or by name from a hub where one can be reached.

        Args:
            int8: its weights as integers, for inference alone.

        Raises:
            PolicyError: there is no such model here, it is of another family, or what integers need is not installed.
        """
        how = loaded_as(int8, str(folder))
        try:
            kind = AutoConfig.from_pretrained(str(folder)).model_type
            if kind not in FAMILIES:
                raise PolicyError(f"{str(folder)!r} is a {kind!r}; expected one of {', '.join(FAMILIES)}")
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
            processor = Qwen2VLImageProcessorPil.from_pretrained(str(folder))
            attention = "sdpa" if torch.cuda.is_available() else "eager"
            model = Qwen2VLForConditionalGeneration.from_pretrained(str(folder), attn_implementation=attention, **how)
        except (OSError, ValueError, ImportError) as error:
            if isinstance(error, PolicyError):
                raise
            offline = " (hubs are offline: HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
            raise PolicyError(
                f"no model that sees at {str(folder)!r}{offline} ({error}); expected a folder with config.json, "
                "model.safetensors, tokenizer.json and preprocessor_config.json"
            ) from error
        return cls(settled(model, int8), tokenizer, processor, name or Path(folder).name, source=name or str(folder))

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write a standard checkpoint folder, with the processor's settings."""
        super().save(folder, write=write)
        if write:
            self.processor.save_pretrained(folder)

    def twin(self, name: str) -> VisionPolicy:
        """A policy that starts as this one is now and learns on its own."""
        plain = super().twin(name)
        found = VisionPolicy(plain.model, self.tokenizer, self.processor, name, source=self.source)
        found.precision, found.checkpointing, found.together = self.precision, self.checkpointing, self.together
        found._patches = self._patches  # what is read of a picture does not depend on weights
        return found

    def frozen(self, name: str) -> VisionPolicy:
        """A policy that stays as this one is now."""
        found = self.twin(name)
        found.model.requires_grad_(False)
        return found

    @cached_property
    def attention(self) -> str:
        """As the model was given: attention by blocks would reach its vision tower too."""
        return str(self.model.config._attn_implementation)

    def see(self, pictures: Sequence[Picture]) -> None:
        """Keep what is read of pictures, so that actions that saw them can be scored."""
        for picture in pictures:
            self._grid(picture)

    def make_room(self) -> None:
        """Drop what was seen longest ago."""
        size = sum(pixels.nbytes for pixels, _ in self._patches.values())
        while self._patches and size > KEPT_BYTES:
            _, (pixels, _) = self._patches.popitem(last=False)
            size -= pixels.nbytes

    def prompt(self, observation: Observation) -> Prompt:
        """The observation as the policy reads it: pictures before the text of their turn.

        Raises:
            PolicyError: a picture is too narrow, nothing is asked about it, or what was read before in this window has
                other tokens for pictures than those that are shown.
            DataError: it has no pixels, as in logs.
        """
        if observation.pictures and not observation.prompt:
            raise PolicyError(f"{self.name!r} was shown pictures and asked nothing; expected a prompt")
        grids = [self._grid(one) for one in observation.shown]
        ids = tuple(observation_ids(self.tokenizer, self.name, observation, self._standing))
        stand = [at for at, one in enumerate(ids) if one == self.image]
        media, before = [], 0
        for one, (down, across) in zip(observation.shown, grids, strict=True):
            own = stand[before : before + down * across]
            before += down * across
            if len(own) < down * across or own[-1] - own[0] >= len(own):
                break
            media.append(Media(own[0], own[-1] + 1, one.digest, (down, across)))
        if len(media) < len(grids) or before < len(stand):
            needed = sum(down * across for down, across in grids)
            raise PolicyError(
                f"{self.name!r}: a prompt has {len(stand)} tokens that stand for pictures, and is shown {len(grids)} "
                f"that take {needed}; expected what was read before as it was, with the pictures that it is about"
            )
        return Prompt(ids, tuple(media))

    def inputs(self, tokens: torch.Tensor, positions: torch.Tensor, media: Sequence[Stood]) -> dict[str, Any]:
        """What the model is called with: embeddings, among them those of pictures, each read once.

        Raises:
            PolicyError: a picture was never shown to this policy, as where rows come from a log.
        """
        if not media:
            return super().inputs(tokens, positions, media)
        digests = list(dict.fromkeys(one.digest for _, _, one in media))
        missing = [digest for digest in digests if digest not in self._patches]
        if missing:
            raise PolicyError(
                f"{self.name!r} was to score {len(missing)} pictures that it was not shown ({missing[0][:12]}); logs "
                "hold no pixels: show them again"
            )
        device, patches = tokens.device, [self._patches[digest] for digest in digests]
        seen = self.model.get_image_features(
            torch.cat([pixels for pixels, _ in patches]).to(device), torch.cat([grid for _, grid in patches]).to(device)
        ).pooler_output
        features = dict(zip(digests, seen, strict=True))
        embedded = self.model.get_input_embeddings()(tokens)
        rows = torch.cat([torch.full((one.end - one.start,), row) for row, _, one in media])
        columns = torch.cat([torch.arange(at, at + one.end - one.start) for _, at, one in media])
        stood = torch.cat([features[one.digest] for _, _, one in media]).to(embedded.dtype)
        embedded = embedded.index_put((rows.to(device), columns.to(device)), stood)
        return {"inputs_embeds": embedded, "position_ids": positions}

    def _standing(self, observation: Observation) -> list[int]:
        """Tokens that stand for the pictures of a turn."""
        begin, end = self.around_image
        return [
            token
            for down, across in map(self._grid, observation.pictures)
            for token in (begin, *[self.image] * (down * across), end)
        ]

    def _grid(self, picture: Picture) -> tuple[int, int]:
        """How many tokens stand for a picture, down and across; its patches are kept."""
        merge = self.processor.merge_size
        if picture.digest not in self._patches:
            image = image_of(picture)
            try:
                made = self.processor(images=[image], return_tensors="pt")
            except ValueError as error:
                raise PolicyError(f"{self.name!r} cannot be shown a picture of {picture.size} ({error})") from error
            self._patches[picture.digest] = made["pixel_values"], made["image_grid_thw"]
        self._patches.move_to_end(picture.digest)
        _, down, across = self._patches[picture.digest][1][0].tolist()
        return down // merge, across // merge
