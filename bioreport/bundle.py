"""Bundles: everything that one model needs, in one folder.

``config.json`` has sizes and settings, ``model.safetensors`` what was trained (encoder, projector, special
tokens, findings head), and the causal LM is named by its Hub id, or lies in the subfolder ``llm``.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bioreport.ecg.preprocess import SPECS, EcgSpec
from bioreport.encoders.cbramod import CBraMod
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.errors import InputError
from bioreport.files import check_replaceable, folder_written_atomically
from bioreport.heads import FindingsHead
from bioreport.hub import EMBEDDED, model_folder
from bioreport.lora import load_lora, save_lora
from bioreport.preprocess import PreprocessSpec
from bioreport.projectors import build_projector

if TYPE_CHECKING:
    from bioreport.fusion import PrefixFusion

FORMAT, VERSION = "bioreport-bundle", 1
SPECIAL_TOKENS = ("start_eeg_token", "end_eeg_token", "eeg_session_separator_token")
_OWN_FILES = frozenset({"config.json", "model.safetensors", "llm", "adapter", "README.md"})


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


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda", "this machine has no CUDA device", "use --device cpu or auto")
    return chosen


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """``"auto"`` is bfloat16 on a GPU that has it, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def load_bundle(
    name_or_dir: str | os.PathLike[str] = "bioreport-tiny",
    *,
    llm: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    attention: str = "auto",
) -> Bundle:
    """Read a bundle; its LLM is loaded when it is first needed.

    Parameters
    ----------
    name_or_dir : str or path-like
        ``"bioreport-tiny"`` (EEG) or ``"bioreport-ecg-tiny"``, which lie inside the package, a bundle's
        folder, or its Hub id.
    llm : str, optional
        Hub id or folder of the LLM to use in place of the bundle's.
    device : {"auto", "cpu", "cuda"} or torch.device
    dtype : {"auto", "float32", "bfloat16"} or torch.dtype
        Of the LLM; encoder and projector stay in float32.
    attention : {"auto", "flash"}
        Of the LLM: what torch alone has, or flash-attn.

    Raises
    ------
    InputError
        Where a file is missing, cannot be read, or does not fit the others.
    """
    folder = model_folder(name_or_dir)
    place = resolve_device(device)
    config = _read_config(folder)
    weights = folder / "model.safetensors"
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(
            weights, "is missing or is no safetensors file", "restore the bundle's folder"
        ) from error
    try:
        bundle = _build(config, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            folder / "config.json", f"does not describe a model ({error})", "restore the bundle's folder"
        ) from error
    for prefix, module in (
        ("encoder.", bundle.encoder),
        ("projector.", bundle.projector),
        ("findings_head.", bundle.findings_head),
    ):
        if module is not None:
            _load(
                module,
                {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)},
                weights,
                prefix,
            )
            module.to(place).eval().requires_grad_(False)
    bundle.special_tokens = {key: tensors[key] for key in SPECIAL_TOKENS if key in tensors}
    bundle.device, bundle.dtype = place, resolve_dtype(dtype, place)
    bundle.attention = {"auto": None, "flash": "flash_attention_2"}[attention]
    if llm is not None and bundle.tune == "full":
        raise InputError(folder, "has a language model of its own that was tuned", "leave out --llm")
    bundle.llm_source = llm or bundle.llm_source
    return bundle


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    names = " or ".join(path.name for path in EMBEDDED.values())
    cure = f"give {names} or a folder that `bioreport train` or `bioreport convert` has written"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(folder, "is no model bundle (it has no config.json)", cure) from error
    except (OSError, ValueError) as error:
        raise InputError(path, "cannot be read as JSON", cure) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(path, "is not the config of a bioreport bundle", cure)
    if config.get("version") != VERSION:
        raise InputError(
            path,
            f"has bundle version {config.get('version')!r}, this bioreport reads {VERSION}",
            "install the bioreport that wrote it",
        )
    return config


def _build(config: dict[str, Any], folder: Path) -> Bundle:
    encoder, preprocess = _build_encoder(dict(config["encoder"]), dict(config["preprocess"]))
    bundle = Bundle(
        name=str(config["name"]),
        encoder_config=dict(config["encoder"]),
        encoder=encoder,
        preprocess=preprocess,
        prompt_style=config["prompt"],
        compat=config["compat"],
        disclaimer=config.get("disclaimer", ""),
        llm_source=str(folder / "llm") if config["llm"] == "llm" else config["llm"],
        tune=config.get("tune", "projector"),
        adapter=folder / "adapter" if config.get("tune") == "lora" else None,
        folder=folder,
    )
    if config["projector"] is not None:
        bundle.projector_config = dict(config["projector"])
        bundle.projector = build_projector(**bundle.projector_config)
    if config["findings_head"] is not None:
        bundle.findings_head = FindingsHead(bundle.encoder_dim, **config["findings_head"])
    return bundle


def _build_encoder(
    sizes: dict[str, Any], preprocess: dict[str, Any]
) -> tuple[CBraMod | EcgTokenizer, PreprocessSpec | EcgSpec]:
    kind = sizes.pop("class")
    if kind == "CBraMod":
        preprocess["channels"] = tuple(preprocess["channels"])
        return CBraMod(**sizes), PreprocessSpec(**preprocess)
    if kind == "EcgTokenizer":
        return EcgTokenizer(TokenizerConfig(**sizes)), SPECS[preprocess["name"]]
    raise ValueError(f"unknown encoder {kind!r}")


def _load(module: nn.Module, tensors: dict[str, Tensor], weights: Path, prefix: str) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise InputError(
            weights, f"does not fit config.json ({prefix[:-1]}: {detail})", "restore the bundle's folder"
        ) from error


def check_destination(directory: str | os.PathLike[str]) -> Path:
    """The folder, if `save_bundle` may take its place; raises InputError where it holds something else."""
    return check_replaceable(
        directory,
        _OWN_FILES,
        lambda config: config.get("format") == FORMAT,
        what="is no bundle's folder",
    )


def save_bundle(
    bundle: Bundle,
    directory: str | os.PathLike[str],
    *,
    embed_llm: bool = False,
    dtype: torch.dtype | None = None,
    readme: str | None = None,
    llm_state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a bundle in one step: the whole new folder appears, or the old one stays.

    Parameters
    ----------
    bundle : Bundle
    directory : path-like
        A new or empty folder, or a bundle, which is replaced.
    embed_llm : bool
        Copy the LLM's folder into the bundle. A folder inside a bundle always is copied.
    dtype : torch.dtype, optional
        Store floating-point weights in this dtype; by default as they are.
    readme : str, optional
        Model card, written as README.md.
    llm_state : mapping, optional
        State of an LLM that has learnt; it is written with the bundle.

    Raises
    ------
    InputError
        Where `directory` holds anything that is not a bundle's, or cannot be written.
    """
    directory = check_destination(directory)
    config = bundle.config()
    source = Path(bundle.llm_source) if bundle.llm_source is not None else None
    local = source is not None and source.is_dir()
    embed = embed_llm or (
        local and source is not None and (source.parent / "config.json").is_file() and source.name == "llm"
    )
    tensors = {}
    for key, tensor in bundle.trained_tensors().items():
        stored = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensors[key] = tensor.detach().to("cpu", stored).contiguous()
    with folder_written_atomically(directory) as folder:
        if llm_state is not None:
            bundle.fusion.llm.save_pretrained(folder / "llm", state_dict=dict(llm_state))
            bundle.fusion.tokenizer.save_pretrained(folder / "llm")
        elif embed and local and source is not None:
            shutil.copytree(source, folder / "llm")
        elif embed:
            bundle.fusion.llm.save_pretrained(folder / "llm")
            bundle.fusion.tokenizer.save_pretrained(folder / "llm")
        if bundle.adapter is not None:
            shutil.copytree(bundle.adapter, folder / "adapter")
        elif bundle.tune == "lora":
            save_lora(bundle.fusion.adapter, folder / "adapter")
        if embed or llm_state is not None:
            config["llm"] = "llm"
        elif local and source is not None:
            config["llm"] = str(source.resolve())
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if readme is not None:
            (folder / "README.md").write_text(readme, encoding="utf-8")
        _flush_to_disk(folder)
    return directory


def _flush_to_disk(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            # safetensors writes files that only their owner can read, also into a wheel
            file.chmod(0o644)
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
