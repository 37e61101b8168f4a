"""What ReLU-softmax in some heads costs MPCViT: the tables of docs/mpcvit.md.

    .venv/bin/python benchmarks/mpcvit.py

Takes about two minutes.
"""

from __future__ import annotations

from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.models.zoo.network_file import NETWORKS
from vitruvius.sim.mpc.network import load_network
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.search.binarise import kept_units
from vitruvius.sim.mpc.search.contestants import BASELINES, mixed_config
from vitruvius.sim.mpc.search.latency import Place
from vitruvius.sim.mpc.search.penalty import unit_costs

MODELS = ("mpcvit_cifar10", "mpcvit_tiny_imagenet", "mpcvit_digits")
SHARES = (0.1, 0.3, 0.5, 0.7)


def _config(name: str) -> MpcVitConfig:
    config = NETWORKS[name].config
    assert isinstance(config, MpcVitConfig)
    return config


def spread(config: MpcVitConfig, count: int) -> tuple[tuple[int, ...], ...]:
    """As many heads in every layer as possible: one more in the first layers."""
    least, more = divmod(count, config.depth)
    return tuple(tuple(range(least + (layer < more))) for layer in range(config.depth))


def packed(config: MpcVitConfig, count: int) -> tuple[tuple[int, ...], ...]:
    """The heads of as few layers as possible."""
    sizes = [
        max(0, min(config.heads, count - layer * config.heads)) for layer in range(config.depth)
    ]
    return tuple(tuple(range(size)) for size in sizes)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.2f} ms"


def costs_table() -> list[str]:
    """What the search pays for, by model, protocol and network."""
    lines = [
        "| model | on | a layer's first | each head | heads worth a first | a layer's GELU |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name in MODELS:
        for protocol in ("semi2k", "crypten"):
            for network in ("wan", "lan"):
                place = Place(load_protocol(protocol), load_network(network))
                costs = unit_costs(_config(name), place.latency_s)
                lines.append(
                    f"| `{name}` | {protocol}, {network} | {_seconds(costs.step_s)} | "
                    f"{_seconds(costs.unit_s)} | {costs.step_s / costs.unit_s:.3g} | "
                    f"{_seconds(costs.activation_s)} |"
                )
    return lines


def latencies_table(network: str) -> list[str]:
    """Whole models on SEMI2K, the heads spread over the layers or packed into a few."""
    place = Place(load_protocol("semi2k"), load_network(network))
    lines = [
        "| model | heads with ReLU-softmax | CIFAR-10 | Tiny-ImageNet |",
        "| --- | --- | ---: | ---: |",
    ]
    configs = [_config(name) for name in MODELS[:2]]
    rows: list[tuple[str, str, list[MpcVitConfig]]] = [
        (item.title, "", [item.config(config) for config in configs]) for item in BASELINES
    ]
    for share in SHARES:
        for text, choose in (("spread", spread), ("packed", packed)):
            counts = [kept_units(config.depth * config.heads, share) for config in configs]
            mixed = [
                mixed_config(config, choose(config, count))
                for config, count in zip(configs, counts, strict=True)
            ]
            heads = f"{' and '.join(map(str, counts))}, {text}"
            rows.append((f"MPCViT, μ = {share:g}", heads, mixed))
    for title, heads, found in rows:
        cells = " | ".join(f"{place.latency_s(config):.2f} s" for config in found)
        lines.append(f"| {title} | {heads} | {cells} |")
    return lines


def main() -> None:
    """Prints both tables."""
    for lines in (costs_table(), latencies_table("wan")):
        print("\n".join(lines), end="\n\n")


if __name__ == "__main__":
    main()
