--- The layer of a transformer's encoder, put together from layers that are plugins.
local core = require "tide.core"
local Module = require "tide.nn.module"
local util = require "tide.util"

local M = {}

local OPTIONS = {dim_feedforward = 2048, dropout = 0.1, activation = "relu", layer_norm_eps = 1e-5, batch_first = false,
                 norm_first = false, bias = true, is_causal = false}

--- Attention to itself, then two linear layers at each place, each with a shortcut and a layer norm (Vaswani et al. 2017,
--- arXiv:1706.03762). Parameters are named as PyTorch's: self_attn, linear1, linear2, norm1, norm2. Dropped in training are weights of
--- attention, its results, and those of both linear layers.
---
---     local layer = nn.TransformerEncoderLayer(128, 4, {dim_feedforward = 512, batch_first = true, norm_first = true, is_causal = true})
---     local y = layer(x)                                   -- x, y (N, T, 128)
---@class tide.nn.TransformerEncoderLayer: tide.nn.Module
local Layer = Module:extend "TransformerEncoderLayer"

--- d_model and nhead by place or by name, then the options.
local function read(who, d_model, nhead, opts)
  if type(d_model) == "table" then
    local given = {}
    for k, v in pairs(d_model) do given[k] = v end
    d_model, nhead = given[1] or given.d_model, given[2] or given.nhead
    given[1], given[2], given.d_model, given.nhead = nil, nil, nil, nil
    opts = given
  end
  util.expect(math.type(d_model) == "integer" and d_model > 0, who, "d_model", "an integer >= 1", d_model)
  util.expect(math.type(nhead) == "integer" and nhead > 0, who, "nhead", "an integer >= 1", nhead)
  local o = util.named(who, opts, OPTIONS)
  util.expect(o.activation == "relu" or o.activation == "gelu", who, "activation", "'relu' or 'gelu'", o.activation)
  return d_model, nhead, o
end

--- The sum of two tensors, and a norm of it: one pass over memory where the norm is the layer norm that was put there.
local function add_norm(norm, x, r)
  if norm.__name ~= "LayerNorm" then
    local sum = x + r
    return norm(sum), sum
  end
  local o = norm:options()
  local w = o.elementwise_affine and norm.weight or nil
  return core.ops.add_layer_norm(x, r, w, w and o.bias and norm.bias or nil, {dims = #o.normalized_shape, eps = o.eps})
end

function Layer:init(d_model, nhead, opts)
  local nn = require "tide.nn"
  local d, heads, o = read(self.__name, d_model, nhead, opts)
  self.norm_first, self.activation = o.norm_first, o.activation
  self.self_attn = nn.MultiheadAttention {d, heads, bias = o.bias, batch_first = o.batch_first, is_causal = o.is_causal,
    dropout = o.dropout}
  self.linear1 = nn.Linear {d, o.dim_feedforward, bias = o.bias}
  self.linear2 = nn.Linear {o.dim_feedforward, d, bias = o.bias}
  self.norm1, self.norm2 = nn.LayerNorm(d, o.layer_norm_eps), nn.LayerNorm(d, o.layer_norm_eps)
  self.dropout = nn.Dropout(o.dropout)
end

--- x (T, N, d_model), or (N, T, d_model) where batch first; masks as those of nn.MultiheadAttention.
---@param x tide.Tensor
---@param mask tide.Tensor?               attn_mask
---@param key_padding_mask tide.Tensor?
---@return tide.Tensor y                  shape of x
function Layer:forward(x, mask, key_padding_mask)
  local function attend(z) return self.dropout(self.self_attn(z, nil, nil, mask, key_padding_mask)) end
  local function feed(z)
    z = self.linear1(z)
    return self.dropout(self.linear2(self.dropout(self.activation == "gelu" and z:gelu() or z:relu())))
  end
  if self.norm_first then
    local z, sum = add_norm(self.norm2, x, attend(self.norm1(x)))
    return sum + feed(z)
  end
  x = add_norm(self.norm1, x, attend(x))
  return (add_norm(self.norm2, x, feed(x)))
end

M.TransformerEncoderLayer = Layer

return M
