--- What the scripts that learn to write like a text share: the beginning, the loop of training, and the end.
local tide = require "tide"
local nn = tide.nn

local M = {}

--- The text that `opt.text` names, after the seed and the number of threads are set.
---@param opt table   text, seed, threads
---@return tide.data.Text
function M.begin(opt)
  tide.manual_seed(opt.seed)
  if opt.threads > 0 then tide.set_num_threads(opt.threads) end
  local text = tide.data.text(opt.text)
  print(("%s: %d characters, %d different ones"):format(opt.text, #text, #text.vocabulary))
  return text
end

--- Trains on random pieces of the text; the first result of net(x) are the scores of the next character after each of x (N, T).
---@param net tide.nn.Module
---@param text tide.data.Text
---@param opt table     batch, steps, device
---@param how table     optimizer, length (of a piece), clip (norm of the gradients), every (steps between lines), before (of each step)
function M.train(net, text, opt, how)
  local criterion = nn.CrossEntropyLoss()
  local start, mean = tide.time(), tide.metrics.Mean()
  for step = 1, opt.steps do
    if how.before then how.before(step) end
    local x, y = text:batch(opt.batch, how.length)
    local scores = net(x:to(opt.device))
    local loss = criterion(scores:reshape {-1, #text.vocabulary}, y:to(opt.device):reshape {-1})
    how.optimizer:zero_grad()
    loss:backward()
    nn.utils.clip_grad_norm_(net:parameters(), how.clip)
    how.optimizer:step()
    mean:add(loss)
    if step % how.every == 0 or step == opt.steps then
      local rate = step * opt.batch * how.length / (tide.time() - start)
      print(("step %5d  loss %.4f  %.0f characters a second"):format(step, mean:value(), rate))
      mean = tide.metrics.Mean()
    end
  end
end

--- Classes of a prompt (1, T); of the text's first character where the text has none of the prompt's.
---@param text tide.data.Text
---@param prompt string
---@return tide.Tensor
function M.prompt(text, prompt)
  local ids = text:encode(prompt)
  if #ids == 0 then ids = text.ids:narrow(1, 1, 1) end
  return ids:unsqueeze(1)
end

--- Prints what the network writes, and saves it where `opt.save` says.
---@param net tide.nn.Module
---@param opt table   save
---@param write fun(): string
function M.finish(net, opt, write)
  net:eval()
  print "----"
  print(tide.no_grad(write))
  if opt.save ~= "" then tide.save(net, opt.save) end
end

return M
