"""What a user may choose when a model is quantized, checked in one place."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import VitruviusError

__all__ = ["CalibrationMethod", "QuantizationOptions", "quantization_options"]

CalibrationMethod = Literal["mse", "minmax", "percentile"]


class QuantizationOptions(BaseModel):
    """Scheme, widths and methods of post-training quantization.

    scheme: the integer operators, `edge` for the accelerator here or `ivit` for those of I-ViT
    (arXiv 2207.01405). ivit_mode: of the latter, ``faithful`` to the published code or ``safe``
    from its faults (ShiftGELU's gain and collapse, a square root that has not converged, steps of
    exponentials that are always rounded up). ivit_octaves: how far its Shiftmax reaches,
    ``published`` for 15 octaves or ``fitted`` for what each attention's scores can reach.
    weight_bits: codes of the weights of every Linear and of the patch embedding; 8 in scheme
    `ivit`, as those of activations, for which nothing else is defined.
    activation_bits: codes between operators (LayerNorm, GELU, queries, keys, values, attention);
    the image stays at 8 bits. residual_bits: the stream, always 16.
    calibration: how the range of an activation follows from what calibration saw: ``minmax`` its
    largest magnitude, ``percentile`` the magnitude below which ``percentile`` % of the values
    lie, ``mse`` the range with the least mean square error.
    equalise: fold factors per channel out of LayerNorms, values, and queries and keys where that
    lowers the error (`models.equalisation`). bias_correction: take the mean error of each Linear
    out of its bias (`models.bias_correction`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Literal["edge", "ivit"] = "edge"
    ivit_mode: Literal["safe", "faithful"] = "safe"
    ivit_octaves: Literal["published", "fitted"] = "published"
    weight_bits: Literal[8, 6, 4] = 8
    activation_bits: Literal[8, 6, 4] = 8
    residual_bits: Literal[16] = 16
    calibration: CalibrationMethod = "mse"
    percentile: float = Field(default=99.99, gt=50, le=100)
    equalise: bool = True
    bias_correction: bool = True

    @model_validator(mode="after")
    def _widths_of_the_scheme(self) -> QuantizationOptions:
        if self.scheme == "ivit":
            wrong = [
                f"{name} of 8 in scheme ivit, got {bits}"
                for name, bits in (
                    ("weight_bits", self.weight_bits),
                    ("activation_bits", self.activation_bits),
                )
                if bits != 8
            ]
            if wrong:
                raise ValueError("expected " + "; ".join(wrong))
        return self

    @property
    def label(self) -> str:
        """The usual short name of the widths.

        >>> QuantizationOptions(weight_bits=4).label
        'W4A8'
        """
        return f"W{self.weight_bits}A{self.activation_bits}"


def quantization_options(**chosen: int | float | str | bool) -> QuantizationOptions:
    """Options from plain values; raises VitruviusError in one sentence for all that are wrong.

    >>> quantization_options(weight_bits=4).weight_bits
    4
    """
    try:
        return QuantizationOptions.model_validate(chosen)
    except ValidationError as error:
        texts = [
            f"{'.'.join(str(part) for part in item['loc'])}: {_expected(item['msg'])}, "
            f"got {item['input']!r}"
            if item["loc"]
            else _expected(item["msg"])
            for item in error.errors()
        ]
        raise VitruviusError("quantization options: " + "; ".join(texts)) from None


def _expected(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message.replace("Input should be", "expected").replace(
        "Extra inputs are not permitted", "expected no such option"
    )
