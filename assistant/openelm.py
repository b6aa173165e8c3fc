"""OpenELM (Mehta et al. 2024, arXiv 2404.14619) as a transformers model; parameters are named as in Apple's checkpoints.

Layers differ: from the first to the last, attention gets more heads and the feed-forward part gets wider ("layer-wise
scaling"). Importing this module tells transformers' Auto classes about it, so that a folder with the checkpoint loads like any
other model, without the code that comes with it.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple

# What the four published sizes differ in: layers, width, and the size of a head.
SIZES: dict[str, dict[str, int]] = {
    "270M": {"num_transformer_layers": 16, "model_dim": 1280, "head_dim": 64},
    "450M": {"num_transformer_layers": 20, "model_dim": 1536, "head_dim": 64},
    "1_1B": {"num_transformer_layers": 28, "model_dim": 2048, "head_dim": 64},
    "3B": {"num_transformer_layers": 36, "model_dim": 3072, "head_dim": 128},
}
LORA_TARGETS = ("qkv_proj", "out_proj", "proj_1", "proj_2")


class OpenELMConfig(PreTrainedConfig):  # type: ignore[misc]
    """The settings of the published `config.json`; `query_heads`, `key_heads` and `widths` follow from them, by layer."""

    model_type = "openelm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 -- as transformers has it
    attribute_map = {  # noqa: RUF012
        "hidden_size": "model_dim",
        "num_hidden_layers": "num_transformer_layers",
        "max_position_embeddings": "max_context_length",
        "tie_word_embeddings": "share_input_output_layers",
    }

    vocab_size: int = 32000
    max_context_length: int = 2048
    num_transformer_layers: int = 12
    model_dim: int = 2048
    head_dim: int = 128
    qkv_multipliers: float | list[float] = 1.0
    num_gqa_groups: int = 1
    ffn_multipliers: float | list[float] = 4.0
    ffn_with_glu: bool = True
    ffn_dim_divisor: int = 256
    activation_fn_name: str = "swish"
    normalize_qk_projections: bool = False
    share_input_output_layers: bool = False
    rope_freq_constant: float = 10000.0
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = None

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> "OpenELMConfig":
        """Return the configuration of a published size, one of SIZES."""
        published = {
            "qkv_multipliers": [0.5, 1.0], "num_gqa_groups": 4, "ffn_multipliers": [0.5, 4.0],
            "normalize_qk_projections": True, "share_input_output_layers": True,
        }  # fmt: skip
        return cls(**{**published, **SIZES[size], **changes})

    @property
    def query_heads(self) -> list[int]:
        """How many heads each layer's attention has."""
        step = self.head_dim * self.num_gqa_groups
        factors = _by_layer(self.qkv_multipliers, self.num_transformer_layers)
        return [_nearest(self.model_dim * factor, step) // self.head_dim for factor in factors]

    @property
    def key_heads(self) -> list[int]:
        """How many heads of keys and values each layer has; several query heads share one."""
        return [heads // self.num_gqa_groups for heads in self.query_heads]

    @property
    def widths(self) -> list[int]:
        """How wide each layer's feed-forward part is."""
        factors = _by_layer(self.ffn_multipliers, self.num_transformer_layers)
        return [_nearest(self.model_dim * factor, self.ffn_dim_divisor) for factor in factors]


def _by_layer(factor: float | list[float], layers: int) -> list[float]:
    """Return a factor for each layer: the one given, those given, or from the first of two to the second in equal steps."""
    if not isinstance(factor, list | tuple):
        return [float(factor)] * layers
    if len(factor) == layers:
        return [float(one) for one in factor]
    first, last = factor
    # Rounded to two digits, as the published weights were made.
    return [round(first + (last - first) * layer / max(1, layers - 1), 2) for layer in range(layers)]


def _nearest(value: float, step: int) -> int:
    """Return the multiple of `step` that is nearest to `value`, but never below nine tenths of it."""
    nearest = max(step, int(value + step / 2) // step * step)
    return nearest + step if nearest < 0.9 * value else nearest


class OpenELMRMSNorm(nn.Module):
    """Root mean square normalization, computed in single precision."""

    def __init__(self, size: int) -> None:
        """`size` is that of the last dimension."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension; the result has the number format of `x`, whatever that of the weights."""
        return torch.nn.functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), 1e-6).type_as(x)


class OpenELMAttention(nn.Module):
    """Attention with grouped heads; queries and keys are normalized before they are rotated to their positions."""

    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        """`layer` counts from 0 and decides how many heads there are."""
        super().__init__()
        # Implementations of attention look for these four names.
        self.config, self.layer_idx, self.is_causal, self.num_key_value_groups = config, layer, True, config.num_gqa_groups
        self.heads, self.key_heads = config.query_heads[layer], config.key_heads[layer]
        self.qkv_proj = nn.Linear(config.model_dim, (self.heads + 2 * self.key_heads) * config.head_dim, bias=False)
        self.out_proj = nn.Linear(self.heads * config.head_dim, config.model_dim, bias=False)
        if config.normalize_qk_projections:
            self.q_norm, self.k_norm = OpenELMRMSNorm(config.head_dim), OpenELMRMSNorm(config.head_dim)

    def forward(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        past_key_values: Cache | None,
        **extra: Any,
    ) -> torch.Tensor:
        """Attend; shapes (batch, tokens, width) in and out. `angles` are OpenELMModel's, `extra` is for the implementation."""
        parts = self.qkv_proj(x).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        queries, keys, values = parts.split([self.heads, self.key_heads, self.key_heads], dim=1)
        if self.config.normalize_qk_projections:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, keys = _rotated(queries, *angles), _rotated(keys, *angles)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, sdpa_attention_forward)
        scale = self.config.head_dim**-0.5
        found, _ = attend(self, queries, keys, values, mask, dropout=0.0, scaling=scale, **extra)
        return self.out_proj(found.flatten(2))  # type: ignore[no-any-return]


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of numbers, half a head apart, by the angles of their positions (arXiv 2104.09864)."""
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).type_as(x)


class OpenELMFeedForwardNetwork(nn.Module):
    """The feed-forward part, gated where the configuration says so."""

    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        """`layer` decides how wide it is."""
        super().__init__()
        width = config.widths[layer]
        self.gated = config.ffn_with_glu
        self.proj_1 = nn.Linear(config.model_dim, width * (2 if self.gated else 1), bias=False)
        self.proj_2 = nn.Linear(width, config.model_dim, bias=False)
        self.act = ACT2FN[config.activation_fn_name]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute it for each token by itself."""
        wide = self.proj_1(x)
        if self.gated:
            gate, wide = wide.chunk(2, dim=-1)
            return self.proj_2(self.act(gate) * wide)  # type: ignore[no-any-return]
        return self.proj_2(self.act(wide))  # type: ignore[no-any-return]


class OpenELMDecoderLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention, then the feed-forward part, each added to what came in."""

    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        """`layer` counts from 0."""
        super().__init__()
        self.attn = OpenELMAttention(config, layer)
        self.ffn = OpenELMFeedForwardNetwork(config, layer)
        self.attn_norm, self.ffn_norm = OpenELMRMSNorm(config.model_dim), OpenELMRMSNorm(config.model_dim)

    def forward(self, x: torch.Tensor, **extra: Any) -> torch.Tensor:
        """Compute the layer; shapes (batch, tokens, width) in and out."""
        x = x + self.attn(self.attn_norm(x), **extra)
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]


class OpenELMPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the classes below have in common."""

    config_class = OpenELMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _input_embed_layer = "token_embeddings"
    _no_split_modules = ["OpenELMDecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True


class OpenELMModel(OpenELMPreTrainedModel):
    """Token ids → the last layer's hidden states."""

    def __init__(self, config: OpenELMConfig) -> None:
        """Build the layers with random weights."""
        super().__init__(config)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.model_dim)
        self.layers = nn.ModuleList([OpenELMDecoderLayer(config, layer) for layer in range(config.num_transformer_layers)])
        self.norm = OpenELMRMSNorm(config.model_dim)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **extra: Any,
    ) -> BaseModelOutputWithPast:
        """Compute hidden states, shape (batch, tokens, width); the arguments are those of every transformers model.

        Raises ValueError unless exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.token_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if self.gradient_checkpointing and self.training:
            use_cache = False  # what is computed twice must not be stored twice
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + x.shape[1], device=x.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        angles = self._angles(position_ids)
        for layer in self.layers:
            x = layer(x, angles=angles, mask=mask, past_key_values=past_key_values, **extra)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)

    def _angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosine and sine of every position's angles, shape (batch, 1, tokens, half a head)."""
        # Computed anew each time: a buffer that no checkpoint holds would stay uninitialized when weights are loaded.
        exponents = torch.arange(0, self.config.head_dim, 2, device=positions.device).float() / self.config.head_dim
        angles = positions[:, None, :, None].float() / self.config.rope_freq_constant**exponents
        return angles.cos(), angles.sin()


class OpenELMForCausalLM(OpenELMPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """OpenELM with its vocabulary head, which shares the embeddings' weights in all published sizes."""

    _tied_weights_keys = {"lm_head.weight": "transformer.token_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: OpenELMConfig) -> None:
        """Build the model with random weights."""
        super().__init__(config)
        self.transformer = OpenELMModel(config)
        self.lm_head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **extra: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits, shape (batch, positions, vocabulary), and the loss where `labels` are given.

        `logits_to_keep` says how many last positions, 0 meaning all, or which ones.
        """
        found = self.transformer(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, return_dict=True, **extra
        )
        places = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(found.last_hidden_state[:, places])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **extra)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=found.past_key_values)


AutoConfig.register("openelm", OpenELMConfig, exist_ok=True)
AutoModelForCausalLM.register(OpenELMConfig, OpenELMForCausalLM, exist_ok=True)
