"""What is run in the other frameworks: operators, shapes and attributes, by set."""

from __future__ import annotations

from typing import Any

__all__ = ["CRYPTEN", "LENGTHS", "SPU", "Job", "job"]

Job = dict[str, Any]

LENGTHS = (2, 3, 5, 7, 8, 16, 17, 50, 64, 65, 100, 129, 197, 257)
"""Of rows: powers of two and their neighbours, and the tokens of common models."""

ROWS = 2
CIFAR = {"layers": 7, "heads": 4, "width": 256, "ratio": 2, "classes": 10}
TINY = {"layers": 1, "heads": 12, "width": 192, "ratio": 2, "classes": 200}
PATCHES = {"cifar": [64, 48], "tiny": [256, 48]}


def job(op: str, *shapes: list[int], **attributes: object) -> Job:
    """One run of an operator."""
    return {"op": op, "shapes": list(shapes), "attributes": attributes}


def vit(model: str, softmax: str, gelu: str, **changes: object) -> Job:
    """A whole encoder, or one layer of it, on the patches of one image."""
    sizes = {"cifar": CIFAR, "tiny": TINY}[model]
    return job("vit", PATCHES[model], **{**sizes, "softmax": softmax, "gelu": gelu, **changes})


_PRODUCTS = [
    job("multiply", [1024], [1024]),
    job("multiply", [64, 65], [64, 1]),
    job("multiply", [3, 5, 7], [7]),
    job("matmul", [64, 64], [64, 64]),
    job("matmul", [65, 256], [256, 512]),
    job("matmul", [65, 48], [48, 10]),
    job("matmul", [1, 256], [256, 10]),
    job("matmul", [4, 65, 64], [4, 64, 65]),
    job("matmul", [12, 17, 16], [12, 16, 17]),
    job("matmul", [2, 3, 5, 7], [2, 3, 7, 11]),
    job("matmul", [3, 5, 7], [7, 11]),
    job("convolution", [1, 3, 32, 32], [16, 3, 4, 4], stride=4),
    job("convolution", [1, 8, 9, 9], [12, 8, 3, 3], padding=1),
    job("convolution", [2, 6, 11, 7], [4, 6, 3, 2], stride=2),
]
_ONLY_CRYPTEN = [
    job("convolution", [1, 8, 9, 9], [8, 1, 3, 3], padding=1, groups=8),
    job("convolution", [2, 6, 11, 7], [4, 3, 3, 2], stride=2, groups=2),
    job("convolution_transposed", [1, 8, 5, 5], [8, 4, 2, 2], stride=2),
    job("convolution_transposed", [1, 3, 4, 6], [3, 5, 3, 3], padding=1),
]

_NO_TRAFFIC = [job("sum", [64, 65]), job("add", [1024], [1024])]

CRYPTEN: dict[str, list[Job]] = {
    "operators": [
        job("reveal", [1024]),
        job("reveal", [33, 7]),
        *_NO_TRAFFIC,
        *_PRODUCTS,
        *_ONLY_CRYPTEN,
        job("mean", [64, 65]),
        job("scale", [64, 65]),
        job("avg_pool", [1, 4, 8, 8], kernel_size=2),
        job("cumulative_sum", [8, 17]),
        *[
            job(op, [1024])
            for op in (
                *("square", "a2b", "b2a", "ltz", "relu", "relu6", "hardtanh", "abs", "sign"),
                *("exp", "reciprocal", "reciprocal_any", "inv_sqrt", "sqrt", "log", "sigmoid"),
                *("tanh", "silu", "gelu_tanh", "gelu_tanh_square", "gelu_sigmoid", "quad"),
            )
        ],
        *[job(op, [1024], [1024]) for op in ("and", "less", "equality", "max2", "max2_select")],
        *[job(op, [7, 13]) for op in ("relu", "exp", "inv_sqrt", "gelu_tanh", "sigmoid", "log")],
        job("where", [1024], [1024], [1024]),
        job("divide_any", [64, 65], [64, 1]),
        *[job("power", [1024], exponent=exponent) for exponent in (2, 3, 4, 6, 8)],
        *[job("polynomial", [1024], degree=degree) for degree in (2, 3, 4)],
        *[job("max_pool", [1, 4, 8, 8], kernel_size=side) for side in (2, 4)],
        job("norm", [64, 65]),
        job("variance", [64, 65]),
        job("relu_softmax", [64, 65]),
        job("2quad", [64, 65]),
        *[job(op, [5, 257]) for op in ("relu_softmax", "2quad")],
        job("layernorm", [65, 256]),
        job("layernorm", [7, 13]),
        job("layernorm", [65, 256], [256], [256]),
        job("layernorm_by_product", [65, 256]),
        job("rmsnorm", [65, 256], [256]),
    ],
    "rows": [
        *[job("max", [1, n], method="log_reduction") for n in (1,)],
        *[
            job(op, [ROWS, n], method=method)
            for n in LENGTHS
            for op, method in (
                ("max", "log_reduction"),
                ("max", "tree"),
                ("max", "pairwise"),
                ("max", "double_log_reduction"),
                ("max", "accelerated_cascade"),
                ("softmax", "log_reduction"),
                ("softmax", "tree"),
            )
        ],
        *[job("softmax", [64, n], method="log_reduction") for n in (8, 16, 64, 65)],
        *[
            job("max", [64, 64], method=method)
            for method in (
                *("log_reduction", "tree", "pairwise", "double_log_reduction"),
                "accelerated_cascade",
            )
        ],
        *[job("log_softmax", [ROWS, n]) for n in (10, 100)],
    ],
    "models": [
        vit("cifar", "softmax", "gelu_tanh"),
        vit("cifar", "relu", "gelu_tanh"),
        vit("cifar", "2quad", "gelu_tanh"),
        vit("cifar", "scale", "gelu_tanh"),
        vit("cifar", "2quad", "quad"),
        vit("cifar", "scale", "relu"),
        vit("tiny", "scale", "quad"),
    ],
    "three parties": [
        *[
            job(op, *shapes)
            for op, *shapes in (
                ("reveal", [1024]),
                ("multiply", [1024], [1024]),
                ("square", [1024]),
                ("matmul", [64, 64], [64, 64]),
                ("ltz", [1024]),
                ("relu", [1024]),
                ("exp", [1024]),
                ("softmax", [64, 64]),
            )
        ],
    ],
}

_ROWS_SPU = [
    *[job(op, [ROWS, n]) for n in LENGTHS for op in ("max", "softmax", "relu_softmax", "2quad")],
    *[
        job(op, [ROWS, n], rewrite=True)
        for n in (3, 17, 64, 65, 197, 257)
        for op in ("softmax", "relu_softmax", "2quad")
    ],
    *[job("layernorm", [ROWS, n]) for n in (8, 50, 192, 256)],
]
_ELEMENTWISE_SPU = (
    *("public_multiply", "square", "power2", "cube", "ltz", "relu", "relu6", "hardtanh", "abs"),
    *("sign", "exp", "reciprocal", "inv_sqrt", "sqrt", "log", "sigmoid", "tanh", "erf", "silu"),
    *("gelu_tanh", "gelu_sigmoid", "gelu_erf", "quad"),
)
_SOME_SPU = [
    job("integer_multiply", [1024], [1024]),
    job("multiply", [1024], [1024]),
    *[job(op, [1024]) for op in ("public_multiply", "ltz", "relu", "exp", "reciprocal")],
    *[job(op, [1024]) for op in ("inv_sqrt", "tanh", "gelu_tanh", "square")],
    job("divide", [1024], [1024]),
    job("matmul", [64, 64], [64, 64]),
    *[job(op, [64, 65]) for op in ("max", "softmax", "relu_softmax", "2quad")],
    job("softmax", [64, 65], rewrite=True),
    job("layernorm", [65, 256]),
]

SPU: dict[str, list[Job]] = {
    "semi2k": [
        *_NO_TRAFFIC,
        job("integer_multiply", [1024], [1024]),
        job("integer_matmul", [64, 64], [64, 64]),
        *_PRODUCTS,
        job("mean", [64, 65]),
        job("scale", [64, 65]),
        *[job(op, [1024]) for op in _ELEMENTWISE_SPU],
        *[job(op, [1024], [1024]) for op in ("less", "equality", "max2", "divide")],
        *[job(op, [7, 13]) for op in ("relu", "exp", "inv_sqrt", "gelu_tanh")],
        job("where", [1024], [1024], [1024]),
        job("divide", [64, 65], [64, 1]),
        job("divide", [64, 65], [64, 1], rewrite=True),
        *_ROWS_SPU,
        job("softmax", [64, 65]),
        job("softmax", [64, 65], rewrite=True),
        job("layernorm", [65, 256]),
        job("layernorm", [65, 256], [256], [256]),
        job("rmsnorm", [65, 256], [256]),
    ],
    "semi2k models": [
        *[
            vit("cifar", softmax, gelu, layers=1, rewrite=rewrite)
            for softmax, gelu in (
                *(("softmax", "gelu_tanh"), ("relu", "gelu_tanh"), ("2quad", "gelu_tanh")),
                *(("scale", "gelu_tanh"), ("2quad", "quad"), ("scale", "relu")),
                ("scale", "identity"),
            )
            for rewrite in (False, True)
        ],
        vit("cifar", "softmax", "gelu_tanh", layers=1, affine=True, rewrite=False),
        vit("cifar", "softmax", "gelu_tanh", rewrite=False),
        vit("cifar", "softmax", "gelu_tanh", rewrite=True),
        vit("cifar", "relu", "gelu_tanh", rewrite=True),
        vit("cifar", "2quad", "quad", rewrite=True),
        vit("cifar", "scale", "relu", rewrite=False),
        vit("tiny", "softmax", "gelu_tanh", rewrite=True),
        vit("tiny", "2quad", "quad", rewrite=True),
    ],
    "aby3": _SOME_SPU,
    "cheetah": [
        *[job("ltz", [n]) for n in (16, 1024, 16384, 131072)],
        *[job("public_multiply", [n]) for n in (16384, 131072)],
        *[job("integer_multiply", [n], [n]) for n in (16384, 131072)],
        job("relu", [1024]),
        job("exp", [1024]),
        job("gelu_tanh", [1024]),
        job("integer_matmul", [64, 64], [64, 64]),
        job("integer_matmul", [65, 256], [256, 256]),
        job("integer_matmul", [65, 256], [256, 512]),
        job("softmax", [64, 65], rewrite=True),
        job("2quad", [64, 65], rewrite=True),
        job("layernorm", [65, 256]),
        vit("cifar", "2quad", "quad", layers=1, rewrite=True),
        vit("cifar", "softmax", "gelu_tanh", layers=1, rewrite=True),
    ],
}
