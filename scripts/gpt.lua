--- Teach a small transformer to write like a text, character by character (Radford et al. 2019: norms in front, GELU, learned places).
--- usage: tide scripts/gpt.lua [--text FILE] [--layers 4] [--width 128] [--steps 500] …   (--help)
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/parts/?.lua;" .. package.path
local tide = require "tide"
local writer = require "writer"
local nn, optim = tide.nn, tide.optim

local opt = tide.options {
  text = "/usr/share/common-licenses/GPL-3", layers = 4, width = 128, heads = 4, context = 128, dropout = 0.0, batch = 16,
  lr = 1e-3, steps = 300, prompt = "The ", length = 400, temperature = 0.8, seed = 1, threads = 0, device = "cpu", save = "",
}
local text = writer.begin(opt)

local Block = nn.Module:extend "Block"

function Block:init(width, heads)
  self.norm1 = nn.LayerNorm(width)
  self.attention = nn.MultiheadAttention {width, heads, batch_first = true, is_causal = true}
  self.norm2 = nn.LayerNorm(width)
  self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
  self.drop = nn.Dropout(opt.dropout)
end

function Block:forward(x)
  x = x + self.drop(self.attention(self.norm1(x)))
  return x + self.drop(self.down(self.up(self.norm2(x)):gelu()))
end

local GPT = nn.Module:extend "GPT"

function GPT:init(vocabulary)
  self.characters, self.places = nn.Embedding(vocabulary, opt.width), nn.Embedding(opt.context, opt.width)
  self.blocks = nn.ModuleList()
  for _ = 1, opt.layers do self.blocks:append(Block(opt.width, opt.heads)) end
  self.norm, self.head = nn.LayerNorm(opt.width), nn.Linear(opt.width, vocabulary)
end

--- Scores of the next character after each of x (N, T), T at most the context.
function GPT:forward(x)
  local place = tide.arange(1, x:size(2) + 1, {dtype = "i64"}):to(x.device)
  x = self.characters(x) + self.places(place)
  for _, block in ipairs(self.blocks) do x = block(x) end
  return self.head(self.norm(x))
end

local net = GPT(#text.vocabulary):to(opt.device)
print(("%d parameters"):format(net:num_parameters()))
local adam = optim.AdamW(net:parameters(), {lr = opt.lr, weight_decay = 0.1})
local lr = optim.schedule.cosine(opt.lr, opt.lr / 10, math.max(opt.steps, 1))
writer.train(net, text, opt, {optimizer = adam, length = opt.context, clip = 1, every = 50, before = function(step) adam.lr = lr(step) end})

--- Goes on from a prompt, of which the network sees the last `context` characters.
local function write(prompt, length)
  local ids = writer.prompt(text, prompt)
  for _ = 1, length do
    local n = math.min(ids:size(2), opt.context)
    local scores = net(ids:narrow(2, ids:size(2) - n + 1, n):to(opt.device))
    local p = (scores:select(2, -1) / opt.temperature):softmax(2)
    ids = tide.cat({ids, p:multinomial(1):to "cpu"}, 2)
  end
  return text:decode(ids)
end

writer.finish(net, opt, function() return write(opt.prompt, opt.length) end)
