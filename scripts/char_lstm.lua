--- Teach an LSTM to write like a text, character by character (as Karpathy 2015, "The unreasonable effectiveness of recurrent neural
--- networks").    usage: tide scripts/char_lstm.lua [--text FILE] [--cell GRU] [--steps 1000] …   (--help)
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/parts/?.lua;" .. package.path
local tide = require "tide"
local writer = require "writer"
local nn, optim = tide.nn, tide.optim

local opt = tide.options {
  text = "/usr/share/common-licenses/GPL-3", cell = "LSTM", hidden = 128, layers = 1, dropout = 0.0, window = 64, batch = 32,
  lr = 2e-3, steps = 600, prompt = "The ", length = 400, temperature = 0.8, seed = 1, threads = 0, device = "cpu", save = "",
}
local text = writer.begin(opt)

local Writer = nn.Module:extend "Writer"

function Writer:init(vocabulary)
  self.embedding = nn.Embedding(vocabulary, opt.hidden)
  self.cell = nn[opt.cell] {opt.hidden, opt.hidden, num_layers = opt.layers, dropout = opt.dropout, batch_first = true}
  self.head = nn.Linear(opt.hidden, vocabulary)
end

--- Scores of the next character after each of x (N, T), and the states to go on from.
function Writer:forward(x, ...)
  local results = {self.cell(self.embedding(x), ...)}
  return self.head(results[1]), table.unpack(results, 2)
end

local net = Writer(#text.vocabulary):to(opt.device)
writer.train(net, text, opt, {optimizer = optim.Adam(net:parameters(), {lr = opt.lr}), length = opt.window, clip = 5, every = 100})

--- Goes on from a prompt: what the network has seen is in its states, so each step takes one character.
local function write(prompt, length)
  local x = writer.prompt(text, prompt):to(opt.device)
  local out, states = {text:decode(x:to "cpu")}, {}
  for _ = 1, length do
    local results = {net(x, table.unpack(states))}
    states = {table.unpack(results, 2)}
    local p = (results[1]:select(2, -1) / opt.temperature):softmax(2)
    x = p:multinomial(1)
    out[#out + 1] = text:decode(x)
  end
  return table.concat(out)
end

writer.finish(net, opt, function() return write(opt.prompt, opt.length) end)
