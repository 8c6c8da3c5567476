--- Teach an LSTM to write like a text, character by character (as Karpathy 2015, "The unreasonable effectiveness of recurrent neural
--- networks").    usage: tide scripts/char_lstm.lua [--text FILE] [--cell GRU] [--steps 1000] …   (--help)
local tide = require "tide"
local nn, optim, data = tide.nn, tide.optim, tide.data

local opt = tide.options {
  text = "/usr/share/common-licenses/GPL-3", cell = "LSTM", hidden = 128, layers = 1, dropout = 0.0, window = 64, batch = 32,
  lr = 2e-3, steps = 600, prompt = "The ", length = 400, temperature = 0.8, seed = 1, threads = 0, device = "cpu", save = "",
}
tide.manual_seed(opt.seed)
if opt.threads > 0 then tide.set_num_threads(opt.threads) end

local text = data.text(opt.text)
print(("%s: %d characters, %d different ones"):format(opt.text, #text, #text.vocabulary))

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
local criterion = nn.CrossEntropyLoss()
local adam = optim.Adam(net:parameters(), {lr = opt.lr})

local start, mean = tide.time(), tide.metrics.Mean()
for step = 1, opt.steps do
  local x, y = text:batch(opt.batch, opt.window)
  local scores = net(x:to(opt.device))
  local loss = criterion(scores:reshape {-1, #text.vocabulary}, y:to(opt.device):reshape {-1})
  adam:zero_grad()
  loss:backward()
  nn.utils.clip_grad_norm_(net:parameters(), 5)
  adam:step()
  mean:add(loss)
  if step % 100 == 0 or step == opt.steps then
    local rate = step * opt.batch * opt.window / (tide.time() - start)
    print(("step %5d  loss %.4f  %.0f characters a second"):format(step, mean:value(), rate))
    mean = tide.metrics.Mean()
  end
end

--- Goes on from a prompt: what the network has seen is in its states, so each step takes one character.
local function write(prompt, length)
  local ids = text:encode(prompt)
  if #ids == 0 then ids = text.ids:narrow(1, 1, 1) end
  local out, states = {text:decode(ids)}, {}
  local x = ids:unsqueeze(1):to(opt.device)
  for _ = 1, length do
    local results = {net(x, table.unpack(states))}
    states = {table.unpack(results, 2)}
    local p = (results[1]:select(2, -1) / opt.temperature):softmax(2)
    x = p:multinomial(1)
    out[#out + 1] = text:decode(x)
  end
  return table.concat(out)
end

net:eval()
print "----"
print(tide.no_grad(function() return write(opt.prompt, opt.length) end))
if opt.save ~= "" then tide.save(net, opt.save) end
