"""Networks of language, sound and tables of the kinds that are shipped to phones, and the parts that these and networks_images.py share.

Each takes one tensor and gives one, so that compare.py can measure it. make_networks.py has the table of sizes.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

Seq = nn.Sequential


def conv(i, o, k=3, s=1, g=1, act=nn.ReLU, d=1):
    """A convolution with batch norm and an activation, which keeps the image's size but for the stride."""
    return Seq(nn.Conv2d(i, o, k, s, (k - 1) * d // 2, d, g, bias=False), nn.BatchNorm2d(o), *([act()] if act else []))


def conv1(i, o, k=3, s=1, g=1, act=nn.ReLU, d=1):
    return Seq(nn.Conv1d(i, o, k, s, (k - 1) * d // 2, d, g, bias=False), nn.BatchNorm1d(o), *([act()] if act else []))


def separable(i, o, s=1, k=3, act=nn.ReLU):
    return Seq(conv(i, i, k, s, i, act), conv(i, o, 1, act=act))


def mlp(*sizes, act=nn.ReLU, last=None):
    layers = []
    for n, (i, o) in enumerate(zip(sizes, sizes[1:])):
        layers += [nn.Linear(i, o)] + ([act()] if n < len(sizes) - 2 else [last()] if last else [])
    return Seq(*layers)


def planes(*images):
    """Outputs of several sizes as one tensor of (boxes, values), as detectors have them."""
    return torch.cat([i.flatten(2).transpose(1, 2) for i in images], 1)


class Residual(nn.Module):
    def __init__(self, *body, scale=1):
        super().__init__()
        self.body, self.scale = Seq(*body), scale

    def forward(self, x):
        return x + self.body(x) * self.scale if self.scale != 1 else x + self.body(x)


class Flip(nn.Module):
    """Its body with the last two axes, or those given, exchanged."""
    def __init__(self, *body, a=1, b=2):
        super().__init__()
        self.body, self.a, self.b = Seq(*body), a, b

    def forward(self, x):
        return self.body(x.transpose(self.a, self.b)).transpose(self.a, self.b)


class SqueezeExcite(nn.Module):
    def __init__(self, c, r=4, act=nn.ReLU, gate=nn.Sigmoid):
        super().__init__()
        self.body = Seq(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // r, 1), act(), nn.Conv2d(c // r, c, 1), gate())

    def forward(self, x):
        return x * self.body(x)


# --- attention and language ---------------------------------------------------------------------------------------------------


def rope(x, base=10000.):
    """Rotary positions of (batch, heads, tokens, width), halves exchanged."""
    n, d = x.shape[-2:]
    angle = torch.arange(n)[:, None] * base ** (-torch.arange(0, d, 2) / d)[None]
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    return x * cos + torch.cat([-x[..., d // 2:], x[..., :d // 2]], -1) * sin


class RMSNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(1 + torch.randn(d) * .1)

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Attention(nn.Module):
    """Of x, or of x to a context: heads that may share keys and values, rotary positions, a mask or a bias."""
    def __init__(self, d, heads, kv=None, context=None, rotary=False, bias=True, fused=True):
        super().__init__()
        self.h, self.kv, self.rotary, self.fused = heads, kv or heads, rotary, fused
        e, c = d // heads * self.kv, context or d
        self.q, self.k, self.v, self.o = nn.Linear(d, d, bias), nn.Linear(c, e, bias), nn.Linear(c, e, bias), nn.Linear(d, d, bias)

    def forward(self, x, context=None, mask=None):
        c = x if context is None else context
        b, n, d = x.shape
        cut = lambda t, h: t.reshape(b, -1, h, d // self.h).transpose(1, 2)
        q, k, v = cut(self.q(x), self.h), cut(self.k(c), self.kv), cut(self.v(c), self.kv)
        if self.rotary:
            q, k = rope(q), rope(k)
        if self.kv != self.h:
            k, v = (t.repeat_interleave(self.h // self.kv, 1) for t in (k, v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, mask)
        else:
            w = q @ k.transpose(-1, -2) / math.sqrt(d // self.h)
            y = torch.softmax(w if mask is None else w + mask, -1) @ v
        return self.o(y.transpose(1, 2).reshape(b, n, d))


class Layer(nn.Module):
    """A transformer's layer, norms before; gated feed-forward and RMS norms as language models have them, or cross attention."""
    def __init__(self, d, heads, wide=4, gated=False, cross=None, act=F.gelu, post=False, **attention):
        super().__init__()
        norm = RMSNorm if gated else nn.LayerNorm
        self.n1, self.n2, self.attn, self.post, self.act = norm(d), norm(d), Attention(d, heads, bias=not gated, **attention), post, act
        self.up, self.down = nn.Linear(d, int(wide * d), not gated), nn.Linear(int(wide * d), d, not gated)
        self.gate = nn.Linear(d, int(wide * d), False) if gated else None
        self.n3, self.cross = (norm(d), Attention(d, heads, context=cross)) if cross else (None, None)

    def feed(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x) if self.gate else self.act(self.up(x)))

    def forward(self, x, mask=None, context=None):
        if self.post:
            x = self.n1(x + self.attn(x, mask=mask))
            return self.n2(x + self.feed(x))
        x = x + self.attn(self.n1(x), mask=mask)
        if self.cross:
            x = x + self.cross(self.n3(x), context)
        return x + self.feed(self.n2(x))


class Bert(nn.Module):
    """Tokens with padding (zeros), which a mask takes out of the attention."""
    def __init__(self, d=256, heads=4, layers=4, tokens=2000, n=128, post=True, share=False, fused=True):
        super().__init__()
        self.words, self.places, self.norm = nn.Embedding(tokens, d), nn.Parameter(torch.randn(1, n, d) * .02), nn.LayerNorm(d)
        one = [Layer(d, heads, post=post, fused=fused)]
        self.layers = nn.ModuleList(one * layers if share else [Layer(d, heads, post=post, fused=fused) for _ in range(layers)])
        self.out = nn.Linear(d, 9)

    def forward(self, ids):
        mask = (ids == 0).float()[:, None, None, :] * -1e4
        x = self.norm(self.words(ids) + self.places)
        for layer in self.layers:
            x = layer(x, mask)
        return self.out(x)


class Prefill(nn.Module):
    """A language model's layers over a prompt: causal, rotary, grouped keys and values, gated; tied logits of the last token."""
    def __init__(self, d=512, heads=8, kv=2, layers=2, n=64, gated=True, tokens=4000):
        super().__init__()
        self.words = nn.Embedding(tokens, d)
        self.layers = nn.ModuleList(Layer(d, heads, 2.75 if gated else 4, gated, kv=kv, rotary=gated, fused=gated) for _ in range(layers))
        self.norm = RMSNorm(d) if gated else nn.LayerNorm(d)
        self.register_buffer("mask", torch.full((n, n), -1e4).triu(1)[None, None])

    def forward(self, ids):
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, self.mask)
        return self.norm(x)[:, -1] @ self.words.weight.T


class Step(nn.Module):
    """One token of a language model with caches of fixed size. x: the token's embedding, then each layer's keys and values."""
    def __init__(self, d=1024, heads=16, kv=4, layers=2, n=256, wide=2.75):
        super().__init__()
        self.h, self.kv, self.n, self.d = heads, kv, n, d // heads
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.layers = nn.ModuleList(nn.ModuleList([RMSNorm(d), lin(d, d), lin(d, kv * self.d), lin(d, kv * self.d), lin(d, d), RMSNorm(d),
                                                   lin(d, int(wide * d)), lin(d, int(wide * d)), lin(int(wide * d), d)]) for _ in range(layers))
        self.norm, self.head = RMSNorm(d), lin(d, 4000)

    def forward(self, x):
        d = self.h * self.d
        token, cache = x[:, None, :d], x[:, d:].reshape(1, -1, self.kv * self.d)
        for i, (n1, q, k, v, o, n2, gate, up, down) in enumerate(self.layers):
            y = n1(token)
            past = [cache[:, (2 * i + j) * self.n:(2 * i + j + 1) * self.n] for j in (0, 1)]
            keys, values = (torch.cat([p[:, 1:], f(y)], 1).reshape(1, self.n, self.kv, self.d).transpose(1, 2) for p, f in zip(past, (k, v)))
            query = q(y).reshape(1, self.kv, self.h // self.kv, self.d)
            w = torch.softmax(query @ keys.transpose(-1, -2) * self.d ** -.5, -1)
            token = token + o((w @ values).reshape(1, 1, -1))
            y = n2(token)
            token = token + down(F.silu(gate(y)) * up(y))
        return self.head(self.norm(token))


class Decoder(nn.Module):
    """Layers with attention to a context (an encoder's output), which comes behind the tokens in x."""
    def __init__(self, d=384, heads=6, layers=2, tokens=16):
        super().__init__()
        self.tokens, self.layers = tokens, nn.ModuleList(Layer(d, heads, cross=d) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 1000)
        self.register_buffer("mask", torch.full((tokens, tokens), -1e4).triu(1)[None, None])

    def forward(self, x):
        y, context = x[:, :self.tokens], x[:, self.tokens:]
        for layer in self.layers:
            y = layer(y, self.mask, context)
        return self.head(self.norm(y))


class T5(nn.Module):
    """Relative positions as a bias that is looked up by distance."""
    def __init__(self, d=256, heads=4, n=96):
        super().__init__()
        self.layers, self.bias = nn.ModuleList(Layer(d, heads, gated=True, fused=False) for _ in range(3)), nn.Embedding(32, heads)
        self.register_buffer("bucket", (torch.arange(n)[None] - torch.arange(n)[:, None]).clamp(-16, 15) + 16)

    def forward(self, x):
        bias = self.bias(self.bucket).permute(2, 0, 1)[None]
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Recurrent(nn.Module):
    """A tagger: embeddings, recurrent layers, a label for each token."""
    def __init__(self, kind=nn.GRU, d=128, hidden=128, layers=1, both=True, tokens=5000, out=20):
        super().__init__()
        self.words = nn.Embedding(tokens, d) if tokens else nn.Identity()
        self.rnn, self.out = kind(d, hidden, layers, batch_first=True, bidirectional=both), nn.Linear(hidden * (2 if both else 1), out)

    def forward(self, x):
        return self.out(self.rnn(self.words(x))[0])


class TextCnn(nn.Module):
    def __init__(self, d=128):
        super().__init__()
        self.words, self.convs, self.out = nn.Embedding(5000, d), nn.ModuleList(nn.Conv1d(d, 100, k) for k in (3, 4, 5)), nn.Linear(300, 4)

    def forward(self, ids):
        x = self.words(ids).transpose(1, 2)
        return self.out(torch.cat([F.relu(c(x)).amax(-1) for c in self.convs], 1))


class Mixer(nn.Module):
    def __init__(self, d=256, n=196, patch=16, layers=6):
        super().__init__()
        block = lambda: Seq(Residual(nn.LayerNorm(d), Flip(mlp(n, n * 2, n, act=nn.GELU))), Residual(nn.LayerNorm(d), mlp(d, d * 4, d, act=nn.GELU)))
        self.patch, self.blocks, self.head = nn.Conv2d(3, d, patch, patch), Seq(*[block() for _ in range(layers)]), Seq(nn.LayerNorm(d), nn.Linear(d, 1000))

    def forward(self, x):
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


# --- sound --------------------------------------------------------------------------------------------------------------------


class Conformer(nn.Module):
    def __init__(self, d=256, heads=4, k=31):
        super().__init__()
        feed = lambda: Seq(nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.SiLU(), nn.Linear(4 * d, d))
        self.f1, self.f2, self.n1, self.n2, self.n3, self.attn = feed(), feed(), nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d), Attention(d, heads)
        self.conv = Seq(nn.Conv1d(d, 2 * d, 1), nn.GLU(1), nn.Conv1d(d, d, k, 1, k // 2, groups=d), nn.BatchNorm1d(d), nn.SiLU(), nn.Conv1d(d, d, 1))

    def forward(self, x):
        x = x + .5 * self.f1(x)
        x = x + self.attn(self.n1(x))
        x = x + self.conv(self.n2(x).transpose(1, 2)).transpose(1, 2)
        return self.n3(x + .5 * self.f2(x))


class SpeechEncoder(nn.Module):
    """Convolutions that take spectra down to a quarter of the steps, then Conformer's layers and labels' logarithms."""
    def __init__(self, d=256, layers=3, mel=80):
        super().__init__()
        self.stem, self.into = Seq(nn.Conv2d(1, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU()), nn.Linear(64 * mel // 4, d)
        self.layers, self.out = Seq(*[Conformer(d) for _ in range(layers)]), nn.Linear(d, 128)

    def forward(self, x):
        x = self.stem(x[:, None])
        return F.log_softmax(self.out(self.layers(self.into(x.transpose(1, 2).flatten(2)))), -1)


class WhisperEncoder(nn.Module):
    def __init__(self, d=384, heads=6, layers=2, n=300):
        super().__init__()
        self.a, self.b, self.places = nn.Conv1d(80, d, 3, 1, 1), nn.Conv1d(d, d, 3, 2, 1), nn.Parameter(torch.randn(n // 2, d) * .02)
        self.layers, self.norm = nn.ModuleList(Layer(d, heads) for _ in range(layers)), nn.LayerNorm(d)

    def forward(self, x):
        x = F.gelu(self.b(F.gelu(self.a(x)))).transpose(1, 2) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class Spectrum(nn.Module):
    """Log mel spectra of sound by a convolution with the transform's matrix, then a small network."""
    def __init__(self, n=400, hop=160, mel=64):
        super().__init__()
        t = torch.arange(n)
        angle = 2 * math.pi * torch.arange(n // 2 + 1)[:, None] * t[None] / n
        window = torch.hann_window(n)
        self.register_buffer("basis", torch.cat([angle.cos() * window, -angle.sin() * window])[:, None])
        self.register_buffer("mel", torch.rand(mel, n // 2 + 1).pow(8))
        self.hop, self.half = hop, n // 2 + 1
        self.net = Seq(conv(1, 32, 3, 2), separable(32, 64, 2), separable(64, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 35))

    def forward(self, x):
        y = F.conv1d(x, self.basis, stride=self.hop)
        power = y[:, :self.half].pow(2) + y[:, self.half:].pow(2)
        return self.net(torch.log(self.mel @ power + 1e-3)[:, None])


def kws_dscnn(c=64):
    return Seq(nn.Conv2d(1, c, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(c), nn.ReLU(), *[separable(c, c) for _ in range(4)], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 12))


def tc_resnet(k=9):
    class Block(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.body, self.skip = Seq(conv1(i, o, k, 2), conv1(o, o, k, act=None)), conv1(i, o, 1, 2)

        def forward(self, x):
            return F.relu(self.body(x) + self.skip(x))
    return Seq(nn.Conv1d(40, 16, 3, 1, 1, bias=False), Block(16, 24), Block(24, 32), Block(32, 48), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, 12))


class Tcn(nn.Module):
    """Causal dilated convolutions with residuals."""
    def __init__(self, i=32, c=64, k=3, layers=6):
        super().__init__()
        self.k, self.into, self.out = k, nn.Conv1d(i, c, 1), nn.Conv1d(c, 10, 1)
        self.a, self.b = (nn.ModuleList(nn.Conv1d(c, c, k, dilation=2 ** n) for n in range(layers)) for _ in range(2))

    def forward(self, x):
        x = self.into(x)
        for n, (a, b) in enumerate(zip(self.a, self.b)):
            p = (self.k - 1) * 2 ** n
            x = F.relu(x + F.relu(b(F.pad(F.relu(a(F.pad(x, (p, 0)))), (p, 0)))))
        return self.out(x)


class WaveNet(nn.Module):
    """Gated dilated convolutions with skips (tanh times sigmoid)."""
    def __init__(self, c=64, layers=8):
        super().__init__()
        self.into, self.gate, self.next = nn.Conv1d(1, c, 1), nn.ModuleList(nn.Conv1d(c, 2 * c, 2, dilation=2 ** n) for n in range(layers)), nn.ModuleList(nn.Conv1d(c, 2 * c, 1) for _ in range(layers))
        self.out = Seq(nn.ReLU(), nn.Conv1d(c, c, 1), nn.ReLU(), nn.Conv1d(c, 256, 1))

    def forward(self, x):
        x, total = self.into(x), 0
        for n, (gate, following) in enumerate(zip(self.gate, self.next)):
            a, b = gate(F.pad(x, (2 ** n, 0))).chunk(2, 1)
            r, s = following(torch.tanh(a) * torch.sigmoid(b)).chunk(2, 1)
            x, total = x + r, total + s
        return self.out(total)


class TasNet(nn.Module):
    """Separation: an encoder of short windows, depthwise dilated blocks with global norms, a mask, a transposed convolution."""
    def __init__(self, n=256, b=128, h=256):
        super().__init__()
        self.enc, self.dec = nn.Conv1d(1, n, 16, 8, bias=False), nn.ConvTranspose1d(n, 1, 16, 8, bias=False)
        block = lambda d: Residual(nn.Conv1d(b, h, 1), nn.PReLU(), nn.GroupNorm(1, h), nn.Conv1d(h, h, 3, 1, d, d, h), nn.PReLU(), nn.GroupNorm(1, h), nn.Conv1d(h, b, 1))
        self.net = Seq(nn.GroupNorm(1, n), nn.Conv1d(n, b, 1), *[block(2 ** i) for i in range(6)], nn.PReLU(), nn.Conv1d(b, n, 1), nn.Sigmoid())

    def forward(self, x):
        y = F.relu(self.enc(x))
        return self.dec(y * self.net(y))


def vocoder(c=128):
    """HiFi-GAN's generator: transposed convolutions, residual dilated ones, leaky activations."""
    res = lambda c, k: Seq(*[Residual(nn.LeakyReLU(.1), nn.Conv1d(c, c, k, 1, (k - 1) * d // 2, d), nn.LeakyReLU(.1), nn.Conv1d(c, c, k, 1, k // 2)) for d in (1, 3)])
    up = lambda i, s: Seq(nn.LeakyReLU(.1), nn.ConvTranspose1d(i, i // 2, 2 * s, s, s // 2), res(i // 2, 3), res(i // 2, 7))
    return Seq(nn.Conv1d(80, c, 7, 1, 3), up(c, 8), up(c // 2, 8), up(c // 4, 2), nn.LeakyReLU(.1), nn.Conv1d(c // 8, 1, 7, 1, 3), nn.Tanh())


def codec(c=32):
    """An encoder of sound with ELU and strides, as neural codecs have it, then an LSTM."""
    class Last(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.rnn = nn.LSTM(d, d, 1)

        def forward(self, x):
            y = x.permute(2, 0, 1)
            return (self.rnn(y)[0] + y).permute(1, 2, 0)
    stage = lambda i, s: Seq(Residual(nn.ELU(), nn.Conv1d(i, i // 2, 3, 1, 1), nn.ELU(), nn.Conv1d(i // 2, i, 1)), nn.ELU(), nn.Conv1d(i, 2 * i, 2 * s, s, s // 2))
    return Seq(nn.Conv1d(1, c, 7, 1, 3), stage(c, 2), stage(2 * c, 4), stage(4 * c, 4), stage(8 * c, 8), Last(16 * c), nn.ELU(), nn.Conv1d(16 * c, 128, 7, 1, 3))


class Crnn(nn.Module):
    """Text recognition: convolutions, then recurrent layers over columns."""
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.cnn = Seq(conv(1, 64), nn.MaxPool2d(2), conv(64, 128), nn.MaxPool2d(2), conv(128, 256), nn.MaxPool2d((2, 1)), conv(256, 256), nn.MaxPool2d((2, 1)), conv(256, 256, 2))
        self.rnn, self.out = kind(256, 128, 2, batch_first=True, bidirectional=True), nn.Linear(256, 37)

    def forward(self, x):
        x = self.cnn(x).mean(2).transpose(1, 2)
        return F.log_softmax(self.out(self.rnn(x)[0]), -1)


class Speaker(nn.Module):
    """ECAPA-like: dilated 1-d blocks with squeeze and excitation, attentive statistics."""
    def __init__(self, i=80, c=256):
        super().__init__()
        class Se(nn.Module):
            def __init__(self):
                super().__init__()
                self.f = mlp(c, 64, c, last=nn.Sigmoid)

            def forward(self, x):
                return x * self.f(x.mean(2))[:, :, None]
        self.a = conv1(i, c, 5)
        self.b = nn.ModuleList(Residual(conv1(c, c, 1), conv1(c, c, 3, d=d, g=8), conv1(c, c, 1), Se()) for d in (2, 3, 4))
        self.c, self.w, self.out = conv1(3 * c, 3 * c, 1), Seq(nn.Conv1d(3 * c, 64, 1), nn.Tanh(), nn.Conv1d(64, 3 * c, 1)), nn.Linear(6 * c, 192)

    def forward(self, x):
        x, maps = self.a(x), []
        for b in self.b:
            x = b(x)
            maps.append(x)
        x = self.c(torch.cat(maps, 1))
        w = torch.softmax(self.w(x), 2)
        m = (x * w).sum(2)
        return self.out(torch.cat([m, ((x * x * w).sum(2) - m * m).clamp(min=1e-4).sqrt()], 1))


# --- tables, series, points ------------------------------------------------------------------------------------------------------


class Dlrm(nn.Module):
    """Embeddings of 8 fields, dense features through a small network, products of all pairs."""
    def __init__(self, d=32, batch=16):
        super().__init__()
        self.tables, self.bottom, self.top = nn.ModuleList(nn.Embedding(1000, d) for _ in range(8)), mlp(8, 64, d), mlp(d + 81, 256, 64, 1, last=nn.Sigmoid)

    def forward(self, ids):
        dense = self.bottom(ids.float() / 1000)
        all_ = torch.stack([dense] + [t(ids[:, i]) for i, t in enumerate(self.tables)], 1)
        return self.top(torch.cat([dense, (all_ @ all_.transpose(1, 2)).flatten(1)], 1))


class DeepFm(nn.Module):
    def __init__(self, fields=16, d=16):
        super().__init__()
        self.table, self.linear, self.deep = nn.Embedding(5000, d), nn.Embedding(5000, 1), mlp(fields * d, 400, 400, 1)

    def forward(self, ids):
        e = self.table(ids)
        pairs = .5 * (e.sum(1).pow(2) - e.pow(2).sum(1)).sum(1, keepdim=True)
        return torch.sigmoid(self.linear(ids).sum(1) + pairs + self.deep(e.flatten(1)))


class PatchTst(nn.Module):
    """Series of 7 channels cut into patches, a transformer over them, a linear forecast."""
    def __init__(self, d=128):
        super().__init__()
        self.into, self.layers, self.out = nn.Linear(16, d), Seq(*[Layer(d, 8, 2) for _ in range(3)]), nn.Linear(42 * d, 96)

    def forward(self, x):
        mean, std = x.mean(2, keepdim=True), x.std(2, keepdim=True, unbiased=False) + 1e-5
        p = ((x - mean) / std).squeeze(0)
        p = torch.stack([p[:, i * 8:i * 8 + 16] for i in range(42)], 1)
        return self.out(self.layers(self.into(p)).flatten(1))[None] * std + mean


class NBeats(nn.Module):
    def __init__(self, n=96, out=24, h=256):
        super().__init__()
        self.blocks, self.n = nn.ModuleList(mlp(n, h, h, h, h, n + out) for _ in range(4)), n

    def forward(self, x):
        y = 0
        for block in self.blocks:
            b = block(x)
            x, y = x - b[:, :self.n], y + b[:, self.n:]
        return y


class PointNet(nn.Module):
    def __init__(self, n=1024):
        super().__init__()
        self.a, self.b, self.out = Seq(conv1(3, 64, 1), conv1(64, 64, 1)), Seq(conv1(64, 128, 1), conv1(128, 1024, 1)), Seq(conv1(1088, 256, 1), conv1(256, 128, 1), nn.Conv1d(128, 13, 1))

    def forward(self, x):
        a = self.a(x)
        g = self.b(a).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.out(torch.cat([a, g], 1))


class Gcn(nn.Module):
    """Graph convolutions over a fixed normalised adjacency (skeletons: 25 joints, 64 steps)."""
    def __init__(self, joints=25, c=64):
        super().__init__()
        self.register_buffer("adj", torch.softmax(torch.randn(3, joints, joints), -1))
        self.a, self.t = nn.ModuleList(nn.Conv2d(i, 3 * c, 1) for i in (3, c, c)), nn.ModuleList(nn.Conv2d(c, c, (9, 1), 1, (4, 0)) for _ in range(3))
        self.norms, self.out, self.c = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(3)), nn.Linear(c, 60), c

    def forward(self, x):
        for a, t, norm in zip(self.a, self.t, self.norms):
            y = a(x)
            n, _, steps, joints = y.shape
            y = torch.einsum("nkctv,kvw->nctw", y.reshape(n, 3, self.c, steps, joints), self.adj)
            x = F.relu(t(F.relu(norm(y))))
        return self.out(x.mean((2, 3)))


class Siren(nn.Module):
    """Coordinates to colours by sines."""
    def __init__(self, h=256):
        super().__init__()
        self.layers, self.out = nn.ModuleList(nn.Linear(2 if n == 0 else h, h) for n in range(4)), nn.Linear(h, 3)

    def forward(self, x):
        for n, layer in enumerate(self.layers):
            x = torch.sin((10 if n == 0 else 1) * layer(x))
        return self.out(x)
