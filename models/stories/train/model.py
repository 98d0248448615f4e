"""A small Llama: RMSNorm, multi-head attention with rotary positions on neighbouring pairs, SwiGLU,
tied embeddings.

It computes the same as brooklet and llama.cpp for GGUF files of the architecture `llama`.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab: int
    d_model: int
    layers: int
    heads: int
    ff: int
    context: int
    theta: float = 10000.0
    eps: float = 1e-5
    # In training only, for a model that is large for its text.
    dropout: float = 0.0

    as_dict = asdict


SIZES = {
    "tiny": Config(vocab=512, d_model=64, layers=5, heads=2, ff=160, context=256),
    "small": Config(vocab=2048, d_model=128, layers=6, heads=4, ff=352, context=512, dropout=0.1),
}


class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    """Rotates pairs of neighbouring columns (RoFormer, arXiv 2104.09864, equation 34)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        self.dropout = nn.Dropout(c.dropout)
        self.attention_norm = RmsNorm(c.d_model, c.eps)
        self.query = nn.Linear(c.d_model, c.d_model, bias=False)
        self.key = nn.Linear(c.d_model, c.d_model, bias=False)
        self.value = nn.Linear(c.d_model, c.d_model, bias=False)
        self.output = nn.Linear(c.d_model, c.d_model, bias=False)
        self.ff_norm = RmsNorm(c.d_model, c.eps)
        self.gate = nn.Linear(c.d_model, c.ff, bias=False)
        self.up = nn.Linear(c.d_model, c.ff, bias=False)
        self.down = nn.Linear(c.ff, c.d_model, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, width = x.shape
        n = self.attention_norm(x)
        q, k, v = (w(n).view(batch, tokens, self.heads, -1).transpose(1, 2) for w in (self.query, self.key, self.value))
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.dropout(self.output(a.transpose(1, 2).reshape(batch, tokens, width)))
        n = self.ff_norm(x)
        return x + self.dropout(self.down(F.silu(self.gate(n)) * self.up(n)))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.d_model, config.eps)
        half = config.d_model // config.heads // 2
        angles = torch.outer(torch.arange(config.context), config.theta ** (-torch.arange(half) / half))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=config.d_model ** -0.5 if name != "embedding.weight" else 0.02)
        for layer in self.layers:
            for weight in (layer.output.weight, layer.down.weight):
                weight.data /= (2 * config.layers) ** 0.5

    def forward(self, tokens):
        x = self.embedding(tokens)
        cos, sin = self.cos[:tokens.shape[1]], self.sin[:tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embedding.weight)

    def key_spread(self):
        """Distance of the matrices W_K from a multiple of an orthogonal one: the mean over layers of
        |G - I|^2 / d, where G is W_K W_K^T scaled to a mean diagonal of 1. Zero means
        cond(W_K) = 1, so that slim attention's W_K^-1 amplifies no rounding."""
        spread = 0.0
        for layer in self.layers:
            w = layer.key.weight
            gram = w @ w.T
            gram = gram / gram.diagonal().mean()
            spread = spread + (gram - torch.eye(len(gram))).square().sum() / len(gram)
        return spread / len(self.layers)
