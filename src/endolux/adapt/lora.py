"""Which weights of a transformer for depth are trained: all, the head, the last blocks, or low-rank branches."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, Self, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn

from endolux.adapt.dv_lora import DVLoraLinear
from endolux.adapt.strict_copy import copy_strictly
from endolux.errors import ModelError, UsageError, missing_extra

Kind: TypeAlias = Literal["full", "head-only", "last-blocks", "lora", "vector-lora", "dora", "dv-lora"]
Target: TypeAlias = Literal["q", "k", "v", "o", "fc1", "fc2"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TARGETS: Mapping[str, str] = {
    "q": "attention.q_proj",
    "k": "attention.k_proj",
    "v": "attention.v_proj",
    "o": "attention.o_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
"""Layers of a block that can be adapted, and where they are."""
VECTOR_RANKS = (14, 14, 12, 12, 10, 10, 8, 8, 8, 8, 8, 8)
"""DARES (arXiv 2408.17433): ranks of the twelve blocks, more where the network is young."""
EQUAL_RANK = 10
"""The uniform rank with as many parameters as :data:`VECTOR_RANKS`."""
BRANCHES = frozenset({"lora", "vector-lora", "dora", "dv-lora"})
_ADAPTER = re.compile(r"\.lora_(A|B|U|V|magnitude_vector)(\.|$)")


class Adaptable(Protocol):
    """A network that can be adapted."""

    backbone: nn.Module

    def blocks(self) -> Sequence[nn.Module]:
        """Blocks of the transformer, first to last."""
        ...

    def decoder_parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Modules outside the transformer, as ``decoder`` and ``head``."""
        ...

    def parameters(self) -> object:
        """All parameters."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """What an adaptation changed.

    Attributes:
        modules: layers that got a branch.
        adapter: parameters of the branches (and magnitudes).
        trainable: parameters that training changes, those outside the transformer included.
        total: all parameters.
    """

    modules: int
    adapter: int
    trainable: int
    total: int


def rank_vector(blocks: int) -> tuple[int, ...]:
    """DARES's ranks for a transformer of any depth: those of the block at the same share of the way.

    Example:
        >>> rank_vector(12) == VECTOR_RANKS, rank_vector(4)
        (True, (14, 12, 8, 8))
    """
    return tuple(VECTOR_RANKS[index * len(VECTOR_RANKS) // blocks] for index in range(blocks))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """What is trained.

    Attributes:
        kind: ``full``; ``head-only``: decoder and head; ``last-blocks``: these and the last ``blocks`` blocks with the
            last norm; ``lora``: low-rank branches of one rank; ``vector-lora``: a rank for every block; ``dora``: the
            same with learned magnitudes; ``dv-lora``: EndoDAC's with two vectors more.
        ranks: of every block; by default :data:`VECTOR_RANKS` for vector-lora and dora, 10 for lora (as many
            parameters) and 4 for dv-lora. A single number is every block's.
        targets: layers of a block that get a branch; q and v by default, fc1 and fc2 for dv-lora.
        scaling: factor of a branch, whatever its rank.
        dropout: share of a branch's input that is dropped while training.
        blocks: how many last blocks ``last-blocks`` trains.
        decoder: what is trained outside the transformer: ``all``, the ``head``, or ``none``.
        vectors: ``trained``, or ``fixed`` at their random values as EndoDAC's code leaves them (G14).
        modules, parameters, trainable: numbers that must come out: branches, their parameters, all trained ones.
    """

    kind: Kind
    ranks: tuple[int, ...] | None = None
    targets: tuple[str, ...] | None = None
    scaling: float = 1.0
    dropout: float = 0.0
    blocks: int = 4
    decoder: Literal["all", "head", "none"] = "all"
    vectors: Literal["trained", "fixed"] = "trained"
    modules: int | None = None
    parameters: int | None = None
    trainable: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """From JSON values, as a recipe or a checkpoint has them.

        Raises:
            UsageError: ``adapt.config``.

        Example:
            >>> Adaptation.from_config({"kind": "lora", "ranks": [4]}).ranks
            (4,)
        """
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(config) - names)
        if unknown or config.get("kind") not in KINDS:
            raise _impossible(
                f"'{unknown[0]}' is no part of an adaptation"
                if unknown
                else f"There is no kind {config.get('kind')!r}",
                f"Known keys: {', '.join(sorted(names))}; kinds: {', '.join(KINDS)}.",
            )
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        made = cls(**values)  # type: ignore[arg-type]
        made._check()
        return made

    def config(self) -> dict[str, object]:
        """JSON values for :meth:`from_config`; what is left at its default is left out."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    def _check(self) -> None:
        wrong = [target for target in self.targets or () if target not in TARGETS]
        if wrong or self.targets == ():
            raise _impossible(
                f"No layer is called '{wrong[0]}'" if wrong else "No target is named",
                f"Layers of a block: {', '.join(TARGETS)}.",
            )
        if self.ranks is not None and (not self.ranks or any(not isinstance(r, int) or r < 1 for r in self.ranks)):
            raise _impossible(f"The ranks are {list(self.ranks)}", "A rank is a positive integer.")
        if not 0.0 <= self.dropout < 1.0 or not self.scaling > 0.0 or self.blocks < 1:
            raise _impossible(
                f"dropout={self.dropout}, scaling={self.scaling}, blocks={self.blocks}",
                "Dropout is below 1, the scaling is positive, and at least one block is trained.",
            )
        if self.decoder not in ("all", "head", "none") or self.vectors not in ("trained", "fixed"):
            raise _impossible(
                f"decoder={self.decoder!r}, vectors={self.vectors!r}",
                "decoder is all, head or none; vectors are trained or fixed.",
            )

    def chosen_targets(self) -> tuple[str, ...]:
        """Layers that get a branch."""
        return self.targets or (("fc1", "fc2") if self.kind == "dv-lora" else ("q", "v"))

    def chosen_ranks(self, blocks: int) -> tuple[int, ...]:
        """The rank of every block.

        Raises:
            UsageError: ``adapt.ranks`` where their number is not that of the blocks.

        Example:
            >>> sum(Adaptation(kind="lora").chosen_ranks(12)) == sum(Adaptation(kind="vector-lora").chosen_ranks(12))
            True
        """
        if self.ranks is None:
            if self.kind in ("vector-lora", "dora"):
                return rank_vector(blocks)
            return (EQUAL_RANK if self.kind == "lora" else 4,) * blocks
        if len(self.ranks) == 1:
            return self.ranks * blocks
        if len(self.ranks) != blocks:
            raise UsageError(
                f"{len(self.ranks)} ranks for a transformer of {blocks} blocks",
                why="Every block has a rank.",
                fix=f"Give {blocks} ranks, or one for all.",
                error_id="adapt.ranks",
            )
        return self.ranks


def adapt_(network: Adaptable, adaptation: Adaptation) -> Adapted:
    """Adapt a network in place: put branches beside layers, and freeze what is not trained.

    Branches begin at zero, so that the network's function does not change.

    Raises:
        UsageError: ``adapt.ranks``, ``adapt.config``.
        ModelError: ``adapt.count`` where fewer layers match, or other numbers come out, than expected.
        MissingExtraError: without ``peft``.
    """
    module = cast(nn.Module, network)
    blocks = list(network.blocks())
    parts = network.decoder_parts()
    if adaptation.kind == "full":
        module.requires_grad_(True)
    else:
        module.requires_grad_(False)
        trained = {"all": ("decoder", "head"), "head": ("head",), "none": ()}[adaptation.decoder]
        for name in trained:
            for part in parts[name]:
                part.requires_grad_(True)
    if adaptation.kind == "last-blocks":
        if adaptation.blocks > len(blocks):
            raise _impossible(
                f"The last {adaptation.blocks} blocks of {len(blocks)}", "There are no more blocks than these."
            )
        for block in blocks[-adaptation.blocks :]:
            block.requires_grad_(True)
        cast(nn.Module, network.backbone.layernorm).requires_grad_(True)
    expected = 0
    if adaptation.kind in BRANCHES:
        expected = len(blocks) * len(adaptation.chosen_targets())
        _add_branches(network.backbone, blocks, adaptation)
    result = count(module)
    _check_counts(result, adaptation, expected)
    return result


def count(network: nn.Module) -> Adapted:
    """Layers with branches, and parameters."""
    named = list(network.named_parameters())
    layers = {name[: match.start()] for name, _ in named if (match := _ADAPTER.search(name))}
    return Adapted(
        modules=len(layers),
        adapter=sum(p.numel() for name, p in named if _ADAPTER.search(name)),
        trainable=sum(p.numel() for _, p in named if p.requires_grad),
        total=sum(p.numel() for _, p in named),
    )


def _add_branches(backbone: nn.Module, blocks: Sequence[nn.Module], adaptation: Adaptation) -> None:
    ranks = adaptation.chosen_ranks(len(blocks))
    paths = {id(module): name for name, module in backbone.named_modules()}
    found: dict[str, int] = {}
    for block, rank in zip(blocks, ranks, strict=True):
        for target in adaptation.chosen_targets():
            try:
                layer = block.get_submodule(TARGETS[target])
            except AttributeError:
                continue
            if isinstance(layer, nn.Linear):
                found[paths[id(layer)]] = rank
    expected = len(blocks) * len(adaptation.chosen_targets())
    if len(found) != expected:
        # Before anything is changed: names of layers differ between releases of transformers.
        raise _wrong_count("layers to adapt", len(found), expected)
    if adaptation.kind == "dv-lora":
        for name, rank in found.items():
            layer = cast(nn.Linear, backbone.get_submodule(name))
            branch = DVLoraLinear(
                layer, rank=rank, scaling=adaptation.scaling, trained_vectors=adaptation.vectors == "trained"
            )
            _replace(backbone, name, branch)
        return
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        raise missing_extra("peft", "train") from error
    # peft keeps only its own adapters trainable in what it is given.
    kept = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    exact = {re.escape(name): rank for name, rank in found.items()}
    settings = peft.LoraConfig(
        target_modules=sorted(found),
        r=max(ranks),
        lora_alpha=adaptation.scaling * max(ranks),
        rank_pattern=exact,
        # The quotient of the two is the factor of a branch; a global alpha would give every rank another one.
        alpha_pattern={name: adaptation.scaling * rank for name, rank in exact.items()},
        lora_dropout=adaptation.dropout,
        bias="none",
        use_dora=adaptation.kind == "dora",
        init_lora_weights=True,
    )
    peft.inject_adapter_in_model(settings, backbone)
    for name, parameter in backbone.named_parameters():
        if name in kept:
            parameter.requires_grad_(True)


def merge_(network: Adaptable) -> None:
    """Add every branch to the layer it stands beside and remove it; the function of the network stays."""
    merge_branches_(network.backbone)


def merge_branches_(backbone: nn.Module) -> None:
    """:func:`merge_` for the layers anywhere inside a module."""
    for name, module in list(backbone.named_modules()):
        if isinstance(module, DVLoraLinear):
            _replace(backbone, name, module.merged())
        elif hasattr(module, "get_base_layer") and hasattr(module, "lora_A"):
            module.merge(safe_merge=True)
            _replace(backbone, name, cast(nn.Module, module.get_base_layer()))
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config


def load_unadapted(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy weights of the unadapted network into one that may have branches, which stay as they are.

    Raises:
        ModelError: ``model.variant`` where names or shapes differ, ``model.weights`` for what is not finite.
    """
    plain = {name.replace(".base_layer.", "."): name for name in network.state_dict() if not _ADAPTER.search(name)}
    copy_strictly(network, plain, state, fix="Use weights of the same architecture and size, complete and unchanged.")
    with torch.no_grad():
        refresh_magnitudes(network)


def refresh_magnitudes(network: nn.Module) -> None:
    """Set DoRA's magnitudes to the norms of the weights, as they are in an unchanged network."""
    for module in network.modules():
        vectors = getattr(module, "lora_magnitude_vector", None)
        if vectors is None or not hasattr(module, "get_base_layer"):
            continue
        base = cast(nn.Linear, module.get_base_layer())  # type: ignore[operator]
        for name, vector in vectors.items():
            change = module.get_delta_weight(name)  # type: ignore[operator]
            vector.weight.copy_(torch.linalg.norm(base.weight + change, dim=1))


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, module)


def _check_counts(found: Adapted, wanted: Adaptation, modules: int) -> None:
    checks = (
        ("adapted layers", found.modules, modules),
        ("adapted layers", found.modules, wanted.modules),
        ("parameters of adapters", found.adapter, wanted.parameters),
        ("trainable parameters", found.trainable, wanted.trainable),
    )
    for what, number, expected in checks:
        if expected is not None and number != expected:
            raise _wrong_count(what, number, expected)


def _wrong_count(what: str, found: int, expected: int) -> ModelError:
    return ModelError(
        f"{found:,} {what} instead of {expected:,}",
        why="An adapter that matches by name silently adapts less where names or sizes differ.",
        fix="Check model.adapt (targets, ranks, modules, parameters, trainable) and the release of transformers (5).",
        error_id="adapt.count",
    )


def _impossible(what: str, why: str) -> UsageError:
    return UsageError(what, why=why, fix="Correct model.adapt.", error_id="adapt.config")
