"""Bundles: everything that one model needs, in one folder.

``config.json`` has sizes and settings, ``model.safetensors`` what was trained (encoder, projector, special
tokens, findings head), and the causal LM is named by its Hub id, or lies in the subfolder ``llm``.
`bioreport.bundle_reader` reads such a folder, `bioreport.bundle_writer` writes one.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bioreport.ecg.preprocess import EcgSpec
from bioreport.encoders.cbramod import CBraMod
from bioreport.encoders.ecg_autoencoder import EcgTokenizer
from bioreport.errors import InputError
from bioreport.heads import FindingsHead
from bioreport.lora import load_lora
from bioreport.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from bioreport.fusion import PrefixFusion

FORMAT, VERSION = "bioreport-bundle", 1
SPECIAL_TOKENS = ("start_eeg_token", "end_eeg_token", "eeg_session_separator_token")


@dataclass
class Bundle:
    """A model: encoder, projector, special tokens, findings head, and which LLM they are for.

    Attributes
    ----------
    name : str
    encoder_config : dict
        ``class`` and the sizes that `CBraMod` or, for ECG, `TokenizerConfig` takes.
    encoder : CBraMod or EcgTokenizer
        Put in eval mode and frozen, as the findings head is. Decides the `modality`.
    preprocess : PreprocessSpec or EcgSpec
        What the encoder wants to see.
    projector_config : dict or None
        ``kind``, ``encoder_dim``, ``llm_dim`` and the sizes `build_projector` takes; None before training.
    projector : Module or None
    special_tokens : dict of str to Tensor [1, llm_dim]
        By the names in `SPECIAL_TOKENS`; empty before training.
    findings_head : FindingsHead or None
    llm_source : str or None
        Hub id or folder of the causal LM. It is loaded when `fusion` is first asked for.
    prompt_style : {"full", "compact"}
    compat : {None, "celm"}
    disclaimer : str
        Sentence for every report, on what the model was trained on.
    device : torch.device
    dtype : torch.dtype
        Of the LLM.
    tune : {"projector", "lora", "full"}
        What has learnt of the LLM: nothing, low-rank adapters, all.
    adapter : Path or None
        Folder of peft's adapter on the LLM, with ``tune="lora"``.
    attention : str or None
        Of the LLM, as `bioreport.llm.load_llm` takes it.
    folder : Path or None
        Where it was read from.
    """

    name: str
    encoder_config: dict[str, Any]
    encoder: CBraMod | EcgTokenizer
    preprocess: PreprocessSpec | EcgSpec = field(default_factory=PreprocessSpec)
    projector_config: dict[str, Any] | None = None
    projector: nn.Module | None = None
    special_tokens: dict[str, Tensor] = field(default_factory=dict)
    findings_head: FindingsHead | None = None
    llm_source: str | None = None
    prompt_style: str = "full"
    compat: str | None = None
    disclaimer: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    tune: str = "projector"
    adapter: Path | None = None
    attention: str | None = None
    folder: Path | None = None
    _fusion: "PrefixFusion | None" = field(default=None, init=False, repr=False)
    _provenance: dict[str, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for module in (self.encoder, self.findings_head):
            if module is not None:
                module.eval().requires_grad_(False)

    @property
    def modality(self) -> str:
        """What it writes reports of: ``"eeg"`` or ``"ecg"``."""
        return "ecg" if isinstance(self.encoder, EcgTokenizer) else "eeg"

    @property
    def encoder_dim(self) -> int:
        """Width of a token."""
        if isinstance(self.encoder, EcgTokenizer):
            return self.encoder.config.dim
        return int(self.encoder_config.get("out_dim", 200))

    @property
    def where(self) -> str:
        """The folder, or the name of a bundle that was never on disk: what an error is about."""
        return str(self.folder or self.name)

    def dtype_of_encoder(self) -> torch.dtype:
        """Dtype of the encoder's weights."""
        return next(self.encoder.parameters()).dtype

    @property
    def fusion(self) -> "PrefixFusion":
        """Projector and special tokens on the LLM, which is loaded now if it is not yet.

        Raises
        ------
        InputError
            Where the bundle has no projector, or its LLM is missing or of another width.
        """
        if self._fusion is None:
            self._fusion = self._fuse()
        return self._fusion

    def _fuse(self) -> "PrefixFusion":
        from bioreport.fusion import PrefixFusion
        from bioreport.llm import load_llm

        if self.projector is None or self.projector_config is None:
            raise InputError(
                self.where, "has no projector, so it cannot write reports", "train one with `bioreport train`"
            )
        if self.llm_source is None:
            raise InputError(self.where, "names no language model", "name one with --llm")
        llm, tokenizer = load_llm(
            self.llm_source, device=self.device, dtype=self.dtype, attention=self.attention
        )
        width = llm.get_input_embeddings().embedding_dim
        if width != self.projector_config["llm_dim"]:
            raise InputError(
                self.llm_source,
                f"is {width} wide, but the projector of {self.where} was trained for "
                f"{self.projector_config['llm_dim']}",
                "give the LLM it was trained for, or train a projector for this one with `bioreport train`",
            )
        fusion = PrefixFusion(llm, tokenizer, self.projector, self.encoder_dim, compat=self.compat)
        state = {f"projector.{key}": tensor for key, tensor in self.projector.state_dict().items()}
        try:
            fusion.load_trainable_state_dict(state | self.special_tokens)
        except (KeyError, RuntimeError) as error:
            raise InputError(
                self.where, f"has special tokens that do not fit ({error})", "restore the bundle's folder"
            ) from error
        if self.adapter is not None:
            fusion.adopt(load_lora(llm, self.adapter))
        return fusion.to(self.device).requires_grad_(False).eval()

    def use(self, fusion: "PrefixFusion") -> None:
        """Take a fusion that is made already, e.g. one that is being trained, in place of loading the LLM."""
        self.projector = fusion.projector
        self._fusion = fusion

    def trained_tensors(self) -> dict[str, Tensor]:
        """What model.safetensors holds, by its keys."""
        modules: dict[str, nn.Module | None] = {"encoder": self.encoder, "findings_head": self.findings_head}
        if self._fusion is None:
            modules["projector"] = self.projector
        tensors = {
            f"{prefix}.{key}": tensor
            for prefix, module in modules.items()
            if module is not None
            for key, tensor in module.state_dict().items()
        }
        return tensors | (
            self._fusion.trainable_state_dict() if self._fusion is not None else self.special_tokens
        )

    def _adapter_tensors(self) -> dict[str, Tensor]:
        if self.adapter is None:
            return {}
        return load_file(self.adapter / "adapter_model.safetensors")

    def config(self) -> dict[str, Any]:
        """What config.json holds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "encoder": self.encoder_config,
            "projector": self.projector_config,
            "preprocess": self._preprocess_config(),
            "prompt": self.prompt_style,
            "llm": self.llm_source,
            "findings_head": self.findings_head.config() if self.findings_head is not None else None,
            "compat": self.compat,
            "disclaimer": self.disclaimer,
            **({"tune": self.tune} if self.tune != "projector" else {}),
        }

    def _preprocess_config(self) -> dict[str, Any]:
        if isinstance(self.preprocess, EcgSpec):
            return {"name": self.preprocess.name}
        return asdict(self.preprocess)

    def encoding_key(self) -> str:
        """Hash of all that decides what a recording is encoded to."""
        head = self.findings_head
        settings = json.dumps(
            [
                self._preprocess_config(),
                self.encoder_config,
                head.config() if head is not None else None,
                self.compat,
            ],
            sort_keys=True,
        )
        weights = {
            key: tensor
            for key, tensor in self.trained_tensors().items()
            if key.startswith(("encoder.", "findings_head."))
        }
        return hashlib.sha256((settings + hash_tensors(weights)).encode()).hexdigest()

    def provenance(self) -> dict[str, Any]:
        """What a report says of the model that wrote it; taken once, when the first report asks."""
        if self._provenance is None:
            self._provenance = self._describe()
        return dict(self._provenance)

    def _describe(self) -> dict[str, Any]:
        llm = self.llm_source
        if llm is not None and Path(llm).is_dir():
            # a report is passed on; the folders of the machine that wrote it are nobody's business
            llm = Path(llm).name
        return {
            "name": self.name,
            "disclaimer": self.disclaimer,
            "llm": llm,
            "weights": hash_tensors(self.trained_tensors() | self._adapter_tensors()),
            "versions": {name: version(name) for name in ("bioreport", "torch", "transformers")},
        }


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values; the same on every device."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
