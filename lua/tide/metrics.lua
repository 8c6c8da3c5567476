--- Measures that are gathered over many batches. add() reads nothing from the device; value() does.
---@class tide.metrics
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local FOLD = 256                                         -- device tensors kept before they are added up on the device

-- ---- sums that stay on the device until somebody asks ----

local Sum = {}
Sum.__index = Sum

local function new_sum() return setmetatable({total = 0.0, pending = {}}, Sum) end

--- Adds up what is pending on the device, in f64.
local function fold(self)
  local list = self.pending
  if #list == 0 then return nil end
  local sum = core.no_grad(function() return core.ops.stack(list):to "f64":sum() end)
  self.pending = {}
  return sum
end

--- Adds a number or a tensor of one element, times n.
function Sum:add(x, n)
  if type(x) == "number" then
    self.total = self.total + x * n
  elseif x.device == "cpu" then
    self.total = self.total + x:item() * n
  else
    local t = x:detach()
    if n ~= 1 then t = core.no_grad(function() return t * n end) end
    self.pending[#self.pending + 1] = t:dim() == 0 and t or t:reshape {}
    if #self.pending >= FOLD then self.pending = {fold(self)} end
  end
end

function Sum:value()
  local sum = fold(self)
  if sum then self.total = self.total + sum:item() end
  return self.total
end

-- ---- metrics ----

local function metric(name)
  local class = {__name = name}
  class.__index = class
  function class.__tostring(self)
    local v = self:value()
    return ("%s %s"):format(self.name, type(v) == "number" and ("%.4f"):format(v) or tostring(v))
  end
  return class
end

local Mean = metric "Mean"

--- The mean of what is added, weighted by n: of losses, say.
---@param name string?   "loss"; shown beside the value
---@return tide.metrics.Mean
function M.Mean(name)
  local self = setmetatable({name = name or "loss"}, Mean)
  self:reset()
  return self
end

--- Adds a number or a tensor of one element.
---@param x tide.Tensor|number
---@param n integer?   how many samples it stands for, 1
function Mean:add(x, n)
  local fits = type(x) == "number" or core.is_tensor(x) and x:numel() == 1
  util.expect(fits, "Mean", "x", "a number or a Tensor of one element", x)
  n = n or 1
  self.sum:add(x, n)
  self.count = self.count + n
end

--- The mean so far; nan before the first add.
---@return number
function Mean:value() return self.sum:value() / self.count end

--- Forgets everything.
function Mean:reset() self.sum, self.count = new_sum(), 0 end

--- Raises unless output (N, C) and target (N) go together.
local function expect_scores(who, output, target)
  util.expect(core.is_tensor(output) and output:dim() == 2, who, "output", "scores (N, C)", output)
  util.expect(core.is_tensor(target) and target:dim() == 1 and target:size(1) == output:size(1), who, "target",
              ("%d class indices"):format(output:size(1)), target)
end

local Accuracy = metric "Accuracy"
Accuracy.value, Accuracy.reset = Mean.value, Mean.reset

--- The share of samples whose greatest score is that of their class. Outputs (N) or (N, 1) of one score are taken as "yes"
--- where they are greater than 0, against targets 0 or 1.
---@return tide.metrics.Accuracy
function M.Accuracy()
  local self = setmetatable({name = "accuracy"}, Accuracy)
  self:reset()
  return self
end

--- Adds a batch.
---@param output tide.Tensor   (N, C)
---@param target tide.Tensor   (N) class indices 1 .. C
function Accuracy:add(output, target)
  core.no_grad(function()
    local hits
    local single = core.is_tensor(output) and core.is_tensor(target) and
                   (output:dim() == 1 or output:dim() == 2 and output:size(2) == 1) and target:numel() == output:numel()
    if single then
      hits = output:reshape {-1}:gt(0):eq(target:reshape {-1}:gt(0.5))
    else
      expect_scores("Accuracy", output, target)
      hits = output:argmax(2):eq(target)
    end
    self.sum:add(hits:sum(), 1)
    self.count = self.count + hits:numel()
  end)
end

local TopK = metric "TopK"
TopK.value, TopK.reset = Mean.value, Mean.reset

--- The share of samples whose class is among the k greatest scores.
---@param k integer?   5
---@return tide.metrics.TopK
function M.TopK(k)
  k = util.integer("TopK", "k", k or 5, 1)
  local self = setmetatable({name = "top " .. k, k = k}, TopK)
  self:reset()
  return self
end

--- Adds a batch.
---@param output tide.Tensor   (N, C)
---@param target tide.Tensor   (N) class indices 1 .. C
function TopK:add(output, target)
  expect_scores("TopK", output, target)
  core.no_grad(function()
    local _, best = output:topk(math.min(self.k, output:size(2)), 2)
    self.sum:add(best:eq(target:unsqueeze(2)):sum(), 1)
    self.count = self.count + target:size(1)
  end)
end

local ConfusionMatrix = metric "ConfusionMatrix"

--- Counts of true classes (rows) against predicted ones (columns).
---@param classes string[]|integer   names of the classes, or how many there are
---@return tide.metrics.ConfusionMatrix
function M.ConfusionMatrix(classes)
  local names = {}
  if type(classes) == "table" then
    for i, name in ipairs(classes) do names[i] = tostring(name) end
  else
    for i = 1, util.integer("ConfusionMatrix", "classes", classes, 1) do names[i] = tostring(i) end
  end
  util.expect(#names > 0, "ConfusionMatrix", "classes", "names of classes or their number", classes)
  local self = setmetatable({name = "confusion", classes = names}, ConfusionMatrix)
  self:reset()
  return self
end

--- Forgets everything.
function ConfusionMatrix:reset() self.counts = nil end

--- Adds a batch.
---@param output tide.Tensor   scores (N, C), or predicted class indices (N)
---@param target tide.Tensor   (N) class indices 1 .. C
function ConfusionMatrix:add(output, target)
  local n = #self.classes
  core.no_grad(function()
    local predicted = output
    if core.is_tensor(output) and output:dim() == 2 then
      expect_scores("ConfusionMatrix", output, target)
      util.expect(output:size(2) == n, "ConfusionMatrix", "output", ("scores of %d classes"):format(n), output)
      predicted = output:argmax(2)
    end
    local fits = core.is_tensor(predicted) and predicted:dim() == 1
    util.expect(fits, "ConfusionMatrix", "output", "scores (N, C) or classes (N)", output)
    util.expect(core.is_tensor(target) and target:dim() == 1 and target:size(1) == predicted:size(1), "ConfusionMatrix", "target",
                ("%d class indices"):format(predicted:size(1)), target)
    if target:numel() == 0 then return end
    local least = math.min(target:amin():item(), predicted:amin():item())
    local most = math.max(target:amax():item(), predicted:amax():item())
    if least < 1 or most > n then
      util.fail("ConfusionMatrix: expected classes from 1 to %d, got %d", n, least < 1 and least or most)
    end
    local counts = ((target - 1) * n + predicted):bincount(n * n):reshape {n, n}
    self.counts = self.counts and self.counts + counts or counts
  end)
end

--- The counts as rows of integers: value()[true class][predicted class].
---@return integer[][]
function ConfusionMatrix:value()
  if self.counts then return self.counts:totable() end
  local rows, n = {}, #self.classes
  for i = 1, n do
    rows[i] = {}
    for j = 1, n do rows[i][j] = 0 end
  end
  return rows
end

--- Recall (share of a true class that is found) and precision (share of a predicted class that is right) of each class; nan
--- where there are none.
---@return number[] recall, number[] precision
function ConfusionMatrix:rates()
  local rows, recall, precision = self:value(), {}, {}
  for i = 1, #rows do
    local row, column = 0, 0
    for j = 1, #rows do
      row = row + rows[i][j]
      column = column + rows[j][i]
    end
    recall[i], precision[i] = rows[i][i] / row, rows[i][i] / column
  end
  return recall, precision
end

local function percent(x) return x == x and ("%.1f %%"):format(100 * x) or "-" end

--- A table: a row for each true class, a column for each predicted one, recall at the right, precision below.
function ConfusionMatrix:__tostring()
  local rows, names = self:value(), self.classes
  local recall, precision = self:rates()
  local wide, cell, right, all = 9, 7, 0, 0
  for i, name in ipairs(names) do
    wide = math.max(wide, utf8.len(name) or #name)
    for j = 1, #names do
      cell = math.max(cell, #tostring(rows[i][j]))
      all = all + rows[i][j]
    end
    right = right + rows[i][i]
  end
  local function line(first, cells, last)
    local parts = {first .. (" "):rep(wide - (utf8.len(first) or #first))}
    for i, c in ipairs(cells) do parts[i + 1] = (" "):rep(cell - #c) .. c end
    return (table.concat(parts, "  ") .. (last and "  " .. (" "):rep(7 - #last) .. last or ""))
  end
  local head, below, lines = {}, {}, {}
  for j in ipairs(names) do
    head[j] = "[" .. j .. "]"
    below[j] = percent(precision[j])
  end
  lines[1] = line("true", head, "recall")
  for i, name in ipairs(names) do
    local cells = {}
    for j = 1, #names do cells[j] = tostring(rows[i][j]) end
    lines[#lines + 1] = line(name, cells, percent(recall[i]))
  end
  lines[#lines + 1] = line("precision", below)
  local last = "%d of %d right, %s; columns are predicted classes, in the order of the rows"
  lines[#lines + 1] = last:format(right, all, percent(right / all))
  return table.concat(lines, "\n")
end

--- A metric by name, as net:evaluate takes them: "accuracy", "top5", "confusion".
---@param name string
---@param info table?   classes: names of the classes
---@return table
function M.named(name, info)
  if name == "accuracy" then return M.Accuracy() end
  local k = name:match "^top_?(%d+)$"
  if k and math.tointeger(k) >= 1 then return M.TopK(math.tointeger(k)) end
  if name == "confusion" and info and info.classes then return M.ConfusionMatrix(info.classes) end
  if name == "confusion" then
    util.fail "metrics: confusion: the dataset does not name its classes; give metrics.ConfusionMatrix(n) itself"
  end
  util.fail("metrics: expected accuracy, top5 (or another number), confusion or a metric object, got '%s'", name)
end

return M
