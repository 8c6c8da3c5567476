--- The networks of the benchmark on Tide; nets.py has their twins, in the same order and with the same numbers in them.
local tide = require "tide"
local nn = tide.nn

local M = {}

-- ---- numbers that are the same on both sides: a plain recurrence, so that neither needs the other's generator ----

local SEED = 12345
local state = SEED
local CHUNK = 4096                                       -- a Lua table of this length at a time, so that peak memory is the network's

local function fresh()
  state = (state * 1103515245 + 12345) & 0x7fffffff
  return state / 2147483648
end

--- Begins the numbers anew.
function M.restart() state = SEED end

--- Uniform numbers in -scale .. scale.
function M.fill(shape, scale)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  local t = tide.empty {shape = {n}}
  for from = 1, n, CHUNK do
    local values = {}
    for i = 1, math.min(CHUNK, n - from + 1) do values[i] = (fresh() * 2 - 1) * scale end
    t:narrow(1, from, #values):copy_(tide.tensor(values))
  end
  return t:reshape(shape)
end

--- Integers 1 .. k.
function M.ids(shape, k)
  local n, values = 1, {}
  for _, d in ipairs(shape) do n = n * d end
  for i = 1, n do values[i] = math.floor(fresh() * k) + 1 end
  return tide.tensor(values, {dtype = "i64"}):reshape(shape)
end

--- Matrices and kernels uniform by their fan-in, biases small; the scales of normalisation stay 1.
function M.init(net)
  tide.no_grad(function()
    for name, p in net:named_parameters() do
      local shape, fan = p:shape(), 1
      for i = 2, #shape do fan = fan * shape[i] end
      if #shape > 1 then
        p:copy_(M.fill({table.unpack(shape)}, 1 / math.sqrt(fan)))
      elseif not name:match "weight$" then
        p:copy_(M.fill({table.unpack(shape)}, 0.01))
      end
    end
  end)
  return net
end

-- ---- networks ----

function M.mlp()
  return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
end

--- LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, as it is taught today.
function M.lenet()
  return nn.Sequential(
    nn.Conv2d(1, 6, 5, {padding = 2}), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
end

local Block = nn.Module:extend "Block"

function Block:init(c_in, c_out, stride)
  self.stride, self.wider = stride, c_out - c_in
  self.conv1 = nn.Conv2d(c_in, c_out, 3, {stride = stride, padding = 1, bias = false})
  self.bn1 = nn.BatchNorm2d {c_out, activation = "relu"}
  self.conv2 = nn.Conv2d(c_out, c_out, 3, {padding = 1, bias = false})
  self.bn2 = nn.BatchNorm2d {c_out, activation = "relu"} -- after the shortcut, which is added in the same pass
end

--- Shortcut by option A of the paper: every second pixel, and zeros for the channels that are new.
function Block:forward(x)
  local y = self.conv2(self.bn1(self.conv1(x)))
  if self.wider > 0 then
    x = x:slice(3, 1, x:size(3), self.stride):slice(4, 1, x:size(4), self.stride)
    x = x:pad {pads = {0, 0, 0, 0, self.wider // 2, self.wider // 2}}
  end
  return self.bn2(y, x)
end

--- ResNet-20 for 32 x 32 images (He et al. 2016, arXiv:1512.03385, section 4.2).
function M.resnet20()
  local layers = {nn.Conv2d(3, 16, 3, {padding = 1, bias = false}), nn.BatchNorm2d(16), nn.ReLU()}
  for stage = 1, 3 do
    local c = 8 << stage
    for i = 1, 3 do
      local down = stage > 1 and i == 1
      layers[#layers + 1] = Block(down and c // 2 or c, c, down and 2 or 1)
    end
  end
  for _, last in ipairs {nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)} do layers[#layers + 1] = last end
  return nn.Sequential(table.unpack(layers))
end

local CharLSTM = nn.Module:extend "CharLSTM"

function CharLSTM:init(vocabulary, hidden)
  self.embedding = nn.Embedding(vocabulary, hidden)
  self.lstm = nn.LSTM(hidden, hidden, {num_layers = 1, batch_first = true})
  self.head = nn.Linear(hidden, vocabulary)
end

function CharLSTM:forward(x) return self.head((self.lstm(self.embedding(x)))) end

function M.char_lstm() return CharLSTM(65, 128) end

local Attention = nn.Module:extend "Attention"

function Attention:init(width, heads)
  self.width, self.heads = width, heads
  self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
end

function Attention:forward(x)
  local b, t, d = x:size(1), x:size(2), self.width
  local function heads(y) return y:view {b, t, self.heads, d // self.heads}:transpose(2, 3) end
  local q, k, v = table.unpack(self.qkv(x):split(d, 3))
  local y = tide.scaled_dot_product_attention(heads(q), heads(k), heads(v), {is_causal = true})
  return self.out(y:transpose(2, 3):reshape {b, t, d})
end

local Layer = nn.Module:extend "Layer"

function Layer:init(width, heads)
  self.ln1, self.attention = nn.LayerNorm(width), Attention(width, heads)
  self.ln2 = nn.LayerNorm(width)
  self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
end

--- x + attention, and the norm of that sum, are one op.
function Layer:forward(x)
  local normed, sum = tide.add_layer_norm(x, self.attention(self.ln1(x)), self.ln2.weight, self.ln2.bias)
  return sum + self.wide(normed)
end

local GPT = nn.Module:extend "GPT"

function GPT:init(vocabulary, context, width, heads, layers)
  self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
  self.layers = nn.ModuleList()
  for _ = 1, layers do self.layers:append(Layer(width, heads)) end
  self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
  self.place = tide.arange(1, context + 1, {dtype = "i64"})
end

function GPT:forward(x)
  x = self.tokens(x) + self.places(self.place)
  for _, layer in ipairs(self.layers) do x = layer(x) end
  return self.head(self.norm(x))
end

--- A small GPT: pre-norm, GELU, learned places (Radford et al. 2019), 4 layers of width 128 with 4 heads, context 128.
function M.gpt() return GPT(65, 128, 128, 4, 4) end

return M
